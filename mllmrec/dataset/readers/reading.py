"""Open text files: plain or gzipped, UTF-8 or UTF-16, any line end, never more than a limit of unpacked bytes."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Protocol

import polars as pl

from mllmrec.dataset.readers.source import Rejected
from mllmrec.errors import InputError, first_line
from mllmrec.foundation.storage import open_regular

DELIMITERS = ",\t;|"
LINES = {"line": pl.UInt32, "text": pl.String}
LINE_BYTES = 4 << 20  # a longer line is no row of a table
BLANK_LINES = 1_000_000  # in one file
_PIECE_BYTES = 16 << 20  # of a table that are read at a time
_LEAST_LIMIT = 256 << 20  # bytes that any file may unpack to
_PACKING = 100  # real tables pack less well than this
_SAMPLE_BYTES = 4096
_NUL_SHARE = 0.3  # of every second byte, in UTF-16 text of western languages
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a zip archive; save the sheet as .csv, or unpack it",
    b"PAR1": "a parquet file; name it .parquet",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as .csv",
}


class _Rejecting(Protocol):
    def append(self, row: Rejected, /) -> None: ...


def suffix(path: Path) -> str:
    """Return the format that a file's name gives, .gz set aside: "csv", "tsv", "parquet", "jsonl", ..."""
    parts = path.name.lower().split(".")
    return parts[-2] if parts[-1] == "gz" and len(parts) > 2 else parts[-1]


def unpacked_limit(path: Path, max_bytes: int | None) -> int:
    """Return the bytes that a file may unpack to: `max_bytes`, or a hundred times its size, at least 256 MiB."""
    return max_bytes or max(_LEAST_LIMIT, _PACKING * path.stat().st_size)


def refuse_unpacked(path: Path, size: str) -> InputError:
    """Return the error of a file that unpacks to too much."""
    packed = f"{path.stat().st_size / (1 << 20):.1f} MiB"
    return InputError(
        f"{path.name} has {packed} and unpacks to {size}; if it is no accident, permit it with --max-unpacked GIB"
    )


class _Limited(io.RawIOBase):
    """Read the unpacked bytes of a gzip file, up to a limit."""

    def __init__(self, path: Path, file: IO[bytes], limit: int) -> None:
        self._path, self._stream, self._left, self._limit = path, gzip.GzipFile(fileobj=file), limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise refuse_unpacked(self._path, f"over {self._limit >> 20} MiB")
        return count


@contextmanager
def open_text(path: Path, max_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Open a text file as UTF-8 bytes with "\\n" or "\\r\\n" at the end of lines.

    Args:
        path: plain or gzipped, by its content.
        max_bytes: limit of the unpacked bytes; None: by the file's size.

    Raises:
        InputError: the file cannot be read, is damaged, unpacks to too much or is no text.
    """
    try:
        with open_regular(path) as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            limit = unpacked_limit(path, max_bytes)
            stream = io.BufferedReader(_Limited(path, file, limit), 1 << 17) if packed else file
            head = stream.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
            for magic, kind in _FOREIGN.items():
                if head.startswith(magic):
                    raise InputError(f"{path.name} is {kind}")
            encoding = _encoding(head)
            if encoding == "utf-8-sig":
                encoding, _ = "utf-8", stream.read(3)
            if encoding != "utf-8" or (b"\r" in head and b"\n" not in head):
                yield io.BytesIO(_rewritten(path, stream.read(), encoding))
            else:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path.name} cannot be read, it is cut off, damaged or closed: {first_line(error)}"
        ) from error


def _encoding(head: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    low, high = head[0::2], head[1::2]
    if high and high.count(0) > _NUL_SHARE * len(high) and not low.count(0):
        return "utf-16-le"
    if low and low.count(0) > _NUL_SHARE * len(low) and not high.count(0):
        return "utf-16-be"
    return "utf-8"


def _rewritten(path: Path, data: bytes, encoding: str) -> bytes:
    if encoding != "utf-8":
        try:
            data = data.decode(encoding).encode("utf-8")
        except UnicodeError as error:
            raise InputError(
                f"{path.name} looks like UTF-16 but is damaged ({first_line(error)}); save it as UTF-8"
            ) from error
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def read_lines(path: Path, rejected: _Rejecting) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a JSON-lines file; any other line goes to `rejected` with file:line.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    for number, line in lines(path, rejected):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            rejected.append(Rejected(f"{path.name}:{number}", f"not JSON: {str(error)[:100]}"))
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            rejected.append(Rejected(f"{path.name}:{number}", f"wanted an object, got {type(value).__name__}"))


def lines(path: Path, rejected: _Rejecting, max_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes) of a text file's lines that are not blank; too long ones are rejected.

    Args:
        path: the file, plain or gzipped.
        rejected: collects the lines that are left out.
        max_bytes: most bytes unpacked; None: a limit by the file's size.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    number = blank = 0
    with open_text(path, max_bytes) as file:
        while line := file.readline(LINE_BYTES):
            number += 1
            if len(line) >= LINE_BYTES and not line.endswith(b"\n"):
                rejected.append(Rejected(f"{path.name}:{number}", f"a line of over {LINE_BYTES >> 20} MiB"))
                while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            elif line.strip():
                yield number, line
            elif (blank := blank + 1) > BLANK_LINES:
                raise InputError(f"{path.name}:{number}: over {BLANK_LINES:,} blank lines")


@dataclass
class Faults:
    """Collect rows of a file that are left out, in any order.

    Attributes:
        name: of the file.
        rows: line and reason of each.
    """

    name: str
    rows: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Add a row."""
        self.rows.append((line, reason))

    def move(self, rejects: _Rejecting) -> None:
        """Pass the rows on, in the order of their lines."""
        for line, reason in sorted(self.rows, key=itemgetter(0)):
            rejects.append(Rejected(f"{self.name}:{line}", reason))
        self.rows.clear()


def line_pieces(path: Path, faults: Faults, max_bytes: int | None) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Yield line and text of whole lines, some mebibytes at a time, and whether they are the last.

    Raises:
        InputError: the file holds nothing, or cannot be read.
    """
    with open_text(path, max_bytes) as file:
        pieces: list[bytes] = []
        before, has_text, is_last = 0, False, False
        while not is_last:
            pieces.append(file.read(_PIECE_BYTES))
            is_last = len(pieces[-1]) < _PIECE_BYTES
            has_text = has_text or bool(pieces[-1].strip(b"\x00 \t\r\n"))
            if not is_last and (not has_text or b"\n" not in pieces[-1]):
                continue
            data = b"".join(pieces)
            if not has_text:
                raise InputError(
                    f"{path.name} has no text, only NUL bytes; export it again"
                    if data.strip()
                    else f"{path.name} is empty"
                )
            end = len(data) if is_last else data.rindex(b"\n") + 1
            yield _lines(path, data[:end], before, faults), is_last
            before += data.count(b"\n", 0, end)
            pieces = [data[end:]]


def _lines(path: Path, data: bytes, before: int, faults: Faults) -> pl.DataFrame:
    """Return line and text of the lines that hold more than blanks and delimiters; `before` lines precede them."""
    if not data:
        return pl.DataFrame(schema=LINES)
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        whole = _decoded(path, data, before, faults)
    texts = pl.Series("text", [whole.removesuffix("\n")]).str.split("\n").explode()
    frame = pl.DataFrame([texts.str.strip_chars_end("\r")]).with_row_index("line", offset=before + 1)
    return frame.filter(pl.col("text").str.strip_chars(DELIMITERS + " ") != "")


def _decoded(path: Path, data: bytes, before: int, faults: Faults) -> str:
    texts = []
    for number, line in enumerate(data.split(b"\n"), start=before + 1):
        try:
            texts.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            if number == 1:
                raise InputError(f"{path.name}:1: the header is not UTF-8 text; save the file as UTF-8") from error
            faults.add(number, f"not UTF-8 text ({error.reason}); save the file as UTF-8")
            texts.append("")
    return "\n".join(texts)
