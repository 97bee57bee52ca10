"""Read and check the header of a GGUF file, whose every count and offset is hostile until it fits the file.

Libraries trust such a header: a count of 2^60 would fill the memory, an offset past the end would end the process.
So the whole header is walked first, without a library. What it claims must fit into the file's own bytes.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.errors import EngineError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_TENSORS, _MOST_ENTRIES, _MOST_ARRAY = 1 << 16, 1 << 14, 1 << 24
_MOST_DIMENSIONS, _LONGEST_NAME, _LONGEST_SHORT = 4, 1 << 10, 1 << 16
_MOST_BLOCKS, _MOST_EXPERTS = 1024, 1024
_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
# Values a block and bytes a block of each kind of tensor, by the number that the format gives it.
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 28: (1, 8), 29: (256, 56),
    30: (1, 2),
}  # fmt: skip

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The part of a GGUF file that tells a model from others.

    Attributes:
        fields: the metadata that are one short text or one number, by key.
        tensors: the shape of each tensor by its name, fastest dimension first.
    """

    fields: Mapping[str, Value]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """Return the family of the model, such as llama."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def values(self) -> int:
        """Count the values of all tensors."""
        return sum(math.prod(shape) for shape in self.tensors.values())


def read_header(file: Path) -> GgufHeader:
    """Return the checked header of a GGUF file.

    Raises:
        EngineError: it cannot be read, or claims what its bytes do not hold.
    """
    try:
        if not file.is_file():
            raise EngineError(f"there is no GGUF file {file}")
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(data).header()
        _check_claims(header)
    except _BadHeaderError as error:
        raise EngineError(f"{file} is no sound GGUF file: {error}; take it anew from where it came from") from error
    except (OSError, ValueError) as error:  # mmap refuses an empty file by ValueError
        raise EngineError(f"cannot read the GGUF file {file}: {error}") from error
    return header


class _BadHeaderError(Exception):
    """The header claims something that cannot be."""


class _Reader:
    """A position in the bytes of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._position, self._size = data, 0, len(data)

    def header(self) -> GgufHeader:
        """Return the header, every count of it checked against the bytes that are left."""
        if self._take(4, "the magic number") != MAGIC:
            raise _BadHeaderError("it does not begin with GGUF")
        version = self._scalar("I", "the version")
        if version not in _VERSIONS:
            raise _BadHeaderError(f"its version is {version}, and versions 2 and 3 are known")
        tensors = self._count("tensors", _MOST_TENSORS)
        entries = self._count("metadata entries", _MOST_ENTRIES)
        fields: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text(_LONGEST_NAME, "a metadata key")
            value = self._value(self._scalar("I", f"the type of {key!r}"), key)
            if value is not None:
                fields[key] = value
        placed = [self._tensor() for _ in range(tensors)]
        self._check_places(placed, int(fields.get("general.alignment", 32)))
        shapes = {name: shape for name, shape, _, _ in placed}
        if len(shapes) < len(placed):
            raise _BadHeaderError("two of its tensors have one name")
        return GgufHeader(fields, shapes)

    def _take(self, count: int, what: str) -> bytes:
        if count > self._size - self._position:
            raise _BadHeaderError(f"{what} would take {count:,} bytes, and {self._size - self._position:,} are left")
        self._position += count
        return self._data[self._position - count : self._position]

    def _scalar(self, kind: str, what: str) -> int:
        return int(struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}"), what))[0])

    def _count(self, what: str, most: int) -> int:
        count = self._scalar("Q", f"the number of {what}")
        if count > most:
            raise _BadHeaderError(f"it claims {count:,} {what}, and at most {most:,} are taken")
        return count

    def _text(self, longest: int, what: str) -> str:
        length = self._scalar("Q", f"the length of {what}")
        if length > longest:
            raise _BadHeaderError(f"{what} has {length:,} bytes, and at most {longest:,} are taken")
        return self._take(length, what).decode("utf-8", "replace")

    def _value(self, kind: int, key: str) -> Value | None:
        """Return a number or a short text; arrays and long texts are passed over."""
        if kind in _SCALARS:
            layout = f"<{_SCALARS[kind]}"
            return struct.unpack(layout, self._take(struct.calcsize(layout), repr(key)))[0]  # type: ignore[no-any-return]
        if kind == _STRING:
            text = self._text(self._size, repr(key))
            return text if len(text) <= _LONGEST_SHORT else None
        if kind != _ARRAY:
            raise _BadHeaderError(f"{key!r} has the unknown type {kind}")
        inner = self._scalar("I", f"the type of {key!r}")
        count = self._count(f"elements of {key!r}", _MOST_ARRAY)
        if inner in _SCALARS:
            self._take(count * struct.calcsize(f"<{_SCALARS[inner]}"), repr(key))
        elif inner == _STRING:
            for _ in range(count):
                self._text(_LONGEST_SHORT, f"an element of {key!r}")
        else:
            raise _BadHeaderError(f"{key!r} holds elements of the unknown type {inner}")
        return None

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return name, shape, bytes and offset of a tensor."""
        name = self._text(_LONGEST_NAME, "the name of a tensor")
        dimensions = self._scalar("I", f"the dimensions of {name!r}")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise _BadHeaderError(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q", f"the shape of {name!r}") for _ in range(dimensions))
        kind = self._scalar("I", f"the type of {name!r}")
        if kind not in _BLOCKS:
            raise _BadHeaderError(f"the tensor {name!r} has the unknown type {kind}")
        block, width = _BLOCKS[kind]
        values = math.prod(shape)
        if not values or shape[0] % block:
            raise _BadHeaderError(f"the tensor {name!r} of the shape {shape} does not divide into blocks of {block}")
        return name, shape, values // block * width, self._scalar("Q", f"the offset of {name!r}")

    def _check_places(self, placed: list[tuple[str, tuple[int, ...], int, int]], alignment: int) -> None:
        if not 1 <= alignment <= 1 << 16:
            raise _BadHeaderError(f"its alignment is {alignment:,}")
        begin = -(-self._position // alignment) * alignment
        end = begin
        for name, _, size, offset in sorted(placed, key=lambda tensor: tensor[3]):
            if begin + offset < end or begin + offset + size > self._size:
                raise _BadHeaderError(f"the tensor {name!r} lies outside the file or over another; it may be cut off")
            end = begin + offset + size


def _check_claims(header: GgufHeader) -> None:
    """Refuse sizes of a model that its tensors do not bear out: the library would build the model by them."""
    family = header.architecture
    if not family:
        raise _BadHeaderError("it names no general.architecture")
    blocks = header.fields.get(f"{family}.block_count")
    named = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    if not isinstance(blocks, int) or not 1 <= blocks <= _MOST_BLOCKS or blocks != len(named):
        raise _BadHeaderError(f"it claims {blocks!r} layers, and its tensors make {len(named):,}")
    for key, most in (("expert_count", _MOST_EXPERTS), ("expert_used_count", _MOST_EXPERTS)):
        if not 0 <= float(header.fields.get(f"{family}.{key}", 0)) <= most:
            raise _BadHeaderError(f"it claims {header.fields[f'{family}.{key}']!r} of {key}")
    embedding = header.tensors.get("token_embd.weight", ())
    width = header.fields.get(f"{family}.embedding_length")
    if len(embedding) != 2 or embedding[0] != width:
        raise _BadHeaderError(f"it claims a width of {width!r}, and its token_embd.weight has the shape {embedding}")
    inner = header.tensors.get("blk.0.ffn_up.weight")
    claimed = header.fields.get(f"{family}.feed_forward_length")
    if inner and isinstance(claimed, int) and inner[1] != claimed:
        raise _BadHeaderError(f"it claims inner layers of {claimed:,}, and its blk.0.ffn_up.weight has {inner[1]:,}")
