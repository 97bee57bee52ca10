"""A stage's work as blocks: a pure function of a block of rows and of tables that do not change.

A function of blocks stands at the top of a module of mllmrec, so that a worker finds it by its name. It takes a
`Block` and returns arrays. The arrays of all blocks, joined in the order of the rows, are the result of the work.

Tables are arrays, matrices (CSR) or texts. A worker gets them as flat arrays: a matrix as its offsets, columns and
values, texts as offsets and bytes. So whatever starts a worker moves only arrays.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.foundation import digests

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = dict[str, Array]
Table: TypeAlias = "Array | CSR | tuple[str, ...]"
Span: TypeAlias = tuple[int, int]
T = TypeVar("T")

_PACKAGE = "mllmrec."
_BLOCKS = 32  # of a work, at least, where its rows are many
_OFFSETS, _COLUMNS, _VALUES, _WIDTH, _BYTES = "offsets", "columns", "values", "width", "bytes"


@dataclass(frozen=True, slots=True)
class Block:
    """Hold what a function of blocks is given.

    Attributes:
        start: first row.
        stop: one past the last row.
        rows: the block's own rows of each table that is cut.
        shared: the tables that every block reads whole.
        settings: JSON-like.
        kept: values that the blocks of one work share within a process; see `once`.
    """

    start: int
    stop: int
    rows: Mapping[str, Table]
    shared: Mapping[str, Table]
    settings: Mapping[str, Any]
    kept: dict[str, Any] = field(default_factory=dict)

    def array(self, name: str) -> Array:
        """Return a table that is an array."""
        table = self._find(name)
        assert isinstance(table, np.ndarray)
        return table

    def matrix(self, name: str) -> CSR:
        """Return a table that is a matrix."""
        table = self._find(name)
        assert isinstance(table, CSR)
        return table

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a table of texts."""
        table = self._find(name)
        assert isinstance(table, tuple)
        return table

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return a value that is made only from shared tables and settings; a process makes it once per work."""
        if name not in self.kept:
            self.kept[name] = make()
        value: T = self.kept[name]
        return value

    def _find(self, name: str) -> Table:
        return self.rows[name] if name in self.rows else self.shared[name]


Function: TypeAlias = Callable[[Block], Arrays]


@dataclass(frozen=True)
class Work:
    """Rows to be worked through in blocks.

    Attributes:
        function: of blocks, at the top of a module of mllmrec.
        label: name of the work to `progress`.
        total: rows in all.
        size: rows per block. It must not depend on the number of workers, or results would.
        rows: tables of `total` rows; a block gets its own rows.
        shared: tables that every block reads whole.
        settings: JSON-like.
        gpu: each block takes a GPU of a cluster's node.
        keep: its part files stay until the stage is done, so that a killed run goes on with them.
    """

    function: Function
    label: str
    total: int
    size: int
    rows: Mapping[str, Table] = field(default_factory=dict)
    shared: Mapping[str, Table] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    gpu: bool = False
    keep: bool = True

    @property
    def spans(self) -> list[Span]:
        """Return the first row of each block and one past its last; work without rows is one empty block."""
        starts = range(0, max(1, self.total), self.size)
        return [(start, min(start + self.size, self.total)) for start in starts]

    @property
    def function_name(self) -> str:
        """Return where a worker finds the function: module:name."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


def rows_a_block(total: int, most: int, *, least: int = 64, parts: int = _BLOCKS) -> int:
    """Return how many rows a block has: an equal part of all, within limits.

    Args:
        total: rows in all.
        most: rows that a worker has memory for.
        least: rows below which starting a block costs more than computing it.
        parts: blocks of a total that is within the limits.
    """
    return min(most, max(least, -(-total // parts)))


def find_function(name: str) -> Function:
    """Return the function of blocks that `Work.function_name` names; other packages are refused."""
    module, _, function = name.partition(":")
    if not module.startswith(_PACKAGE):
        raise ValueError(f"{name!r} is no function of {_PACKAGE.rstrip('.')}")
    found: Function = getattr(importlib.import_module(module), function)
    return found


def flatten(tables: Mapping[str, Table]) -> Arrays:
    """Return tables as flat arrays, named TABLE or TABLE:PIECE."""
    flat: Arrays = {}
    for name, table in tables.items():
        if isinstance(table, CSR):
            flat[f"{name}:{_OFFSETS}"], flat[f"{name}:{_COLUMNS}"] = table.indptr, table.indices
            flat[f"{name}:{_WIDTH}"] = np.array([table.n_columns], np.int64)
            if table.data is not None:
                flat[f"{name}:{_VALUES}"] = table.data
        elif isinstance(table, tuple):
            encoded = [text.encode("utf-8", "surrogatepass") for text in table]
            ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
            flat[f"{name}:{_OFFSETS}"] = np.concatenate([np.zeros(1, np.int64), ends])
            flat[f"{name}:{_BYTES}"] = np.frombuffer(b"".join(encoded), np.uint8)
        else:
            flat[name] = table
    return flat


def cut(flat: Mapping[str, Array], span: Span) -> Arrays:
    """Return the flat arrays of the rows of a span."""
    start, stop = span
    pieces: Arrays = {}
    for name, array in flat.items():
        table, _, piece = name.partition(":")
        if not piece:
            pieces[name] = array[start:stop]
        elif piece == _OFFSETS:
            pieces[name] = array[start : stop + 1] - array[start]
        elif piece == _WIDTH:
            pieces[name] = array
        else:
            offsets = flat[f"{table}:{_OFFSETS}"]
            pieces[name] = array[int(offsets[start]) : int(offsets[stop])]
    return pieces


def unflatten(flat: Mapping[str, Array]) -> dict[str, Table]:
    """Return the tables that `flatten` took apart."""
    return dict(_tables(flat))


def _tables(flat: Mapping[str, Array]) -> Iterator[tuple[str, Table]]:
    for name, array in flat.items():
        table, _, piece = name.partition(":")
        if not piece:
            yield name, array
        elif piece == _BYTES:
            data, ends = array.tobytes(), flat[f"{table}:{_OFFSETS}"].tolist()
            spans = itertools.pairwise(ends)
            yield table, tuple(data[start:stop].decode("utf-8", "surrogatepass") for start, stop in spans)
        elif piece == _COLUMNS:
            offsets, width = flat[f"{table}:{_OFFSETS}"], int(flat[f"{table}:{_WIDTH}"][0])
            yield table, CSR(offsets, array, flat.get(f"{table}:{_VALUES}"), width)


def pack_texts(texts: Sequence[str]) -> Arrays:
    """Return texts as arrays that a block may return: their bytes, and the length of each."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.array([len(data) for data in encoded], np.int64)
    return {"bytes": np.frombuffer(b"".join(encoded), np.uint8), "lengths": lengths}


def unpack_texts(arrays: Arrays) -> list[str]:
    """Return the texts of all blocks of a work."""
    data, ends = arrays["bytes"].tobytes(), [0, *np.cumsum(arrays["lengths"]).tolist()]
    return [data[start:stop].decode("utf-8", "surrogatepass") for start, stop in itertools.pairwise(ends)]


def array_digest(array: Array) -> str:
    """Return the SHA-256 of an array's type, shape and bytes."""
    data = np.ascontiguousarray(array)
    return digests.hash_value([str(data.dtype), list(data.shape), digests.hash_bytes(data.tobytes())])
