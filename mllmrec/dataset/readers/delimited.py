"""Read csv and tsv into text cells with their line.

A field may be quoted as in RFC 4180; a quote inside an unquoted field is text. A csv field may span lines, unless the
lines that it would take in look like rows. A tsv file is quoted only if every field that opens with a quote closes
in its line; otherwise its quotes are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mllmrec.dataset.readers.reading import DELIMITERS, LINES, Faults, line_pieces, open_text
from mllmrec.dataset.readers.source import Rejects
from mllmrec.errors import InputError

_FIELD_LINES = 1000  # that one quoted field may span
_TYPED = re.compile(r"(.+):(?:token|float)(?:_seq)?")  # a header of RecBole
UNCLOSED, MALFORMED = "a quote opens and is not closed", "text follows a closing quote"


@dataclass(frozen=True)
class Cells:
    """Hold the data rows of a table as text.

    Attributes:
        names: of the columns, as in the header.
        frame: one text column per name, called by its position: "0", "1", ...; empty cells are null.
        lines: the line of each row.
    """

    names: tuple[str, ...]
    frame: pl.DataFrame
    lines: pl.Series


def read_delimited(path: Path, delimiter: str, rejects: Rejects) -> Cells:
    """Read a table whose columns are divided by one character.

    Args:
        path: the file.
        delimiter: "," or the tab, as the file's name says.
        rejects: takes the rows of another width, with a stray quote, in another encoding, and repeated headers.

    Returns:
        The rows that are left, in file order.

    Raises:
        InputError: the file is empty, its header is no header, or it cannot be read at all.
    """
    pieces = list(delimited_pieces(path, delimiter, rejects))
    lines = pl.concat([piece.lines for piece in pieces])
    return Cells(pieces[0].names, pl.concat([piece.frame for piece in pieces]), lines)


def delimited_pieces(
    path: Path, delimiter: str, rejects: Rejects, *, header: Sequence[str] = (), max_bytes: int | None = None
) -> Iterator[Cells]:
    """Yield what `read_delimited` returns, some mebibytes of the file at a time.

    Args:
        path: the file.
        delimiter: "," or the tab, as the file's name says.
        rejects: takes the rows that are left out, in the order of their lines.
        header: names of the columns, where the file's first line is data already.
        max_bytes: limit of the unpacked bytes.

    Raises:
        InputError: as `read_delimited`.
    """
    quoted = delimiter != "\t" or _quotes_close(path, is_headed=not header, max_bytes=max_bytes)
    names: tuple[str, ...] = ()
    rest = pl.DataFrame(schema=LINES)
    faults = Faults(path.name)
    for frame, is_last in line_pieces(path, faults, max_bytes):
        rows = pl.concat([rest, frame])
        if not names:
            if not len(rows):
                continue
            delimiter = _delimiter(path, rows["text"][0], delimiter)
            names = tuple(header) or _header(rows["text"][0], delimiter)
            rows = rows if header else rows.slice(1)
        body = rows.with_row_index("place").select("line", "text", "place")
        cells, rest = _Body(delimiter, faults, len(names), body, quoted=quoted, is_last=is_last).cells()
        cells = cells if header else _without_headers(cells, names, faults)
        faults.move(rejects)
        yield Cells(names, cells.drop("line"), cells["line"])
    if not names:
        raise InputError(f"{path.name} has nothing but blank cells")


def _quotes_close(path: Path, *, is_headed: bool, max_bytes: int | None) -> bool:
    """Tell whether every field of a table that opens with a quote closes in its line."""
    with open_text(path, max_bytes) as file:
        if not any(b'"' in data for data in iter(lambda: file.read(1 << 20), b"")):
            return True
    for frame, _ in line_pieces(path, Faults(path.name), max_bytes):
        lines = frame.slice(1) if is_headed and len(frame) else frame
        is_headed = is_headed and not len(frame)
        opening = lines.filter(pl.col("text").str.contains(r'(?:^|\t) *"'))["text"]
        if any(split_fields(text, "\t")[1] for text in opening):
            return False
    return True


def _without_headers(cells: pl.DataFrame, names: Sequence[str], faults: Faults) -> pl.DataFrame:
    """Return the rows that do not repeat the header, as files that were put together do."""
    again = cells
    for n, name in enumerate(names):
        plain = pl.col(str(n)).str.strip_chars_start("\ufeff").str.to_lowercase()
        again = again.filter(plain.eq_missing(name.lower() or None))
    for line in again["line"]:
        faults.add(line, "the header again")
    return cells.filter(~pl.col("line").is_in(again["line"].implode()))


def _delimiter(path: Path, header: str, delimiter: str) -> str:
    """Return the character that divides a header: of a csv file also ; or |, if it has no comma.

    Raises:
        InputError: another character divides it.
    """
    other = max(DELIMITERS, key=header.count)
    if delimiter in header or not header.count(other):
        return delimiter
    if delimiter == "," and other != "\t":
        return other
    name = "csv" if delimiter == "\t" else "tsv"
    raise InputError(
        f"{path.name}:1: wanted columns divided by {delimiter!r}, but the header has {other!r}; "
        f"rename the file to .{name}"
    )


def _header(line: str, delimiter: str) -> tuple[str, ...]:
    fields, fault = split_fields(line, delimiter)
    names = [name.strip() for name in (line.split(delimiter) if fault else fields)]
    typed = [_TYPED.fullmatch(name) for name in names]
    return tuple(match[1] for match in typed if match) if all(typed) else tuple(names)


def split_fields(record: str, delimiter: str) -> tuple[list[str], str]:
    """Return the fields of a record, quotes undone, and its fault: "" if the quotes are in order."""
    quoted, at = _quoted(delimiter), 0
    fields: list[str] = []
    while True:
        if match := quoted.match(record, at):
            if match["close"] is None:
                return fields, UNCLOSED if match.end() >= len(record) else MALFORMED
            fields.append(match["field"].replace('""', '"'))
            at = match.end()
        else:
            end = record.find(delimiter, at)
            fields.append(record[at : end if end >= 0 else None])
            at = end if end >= 0 else len(record)
        if at >= len(record):
            return fields, ""
        at += 1
        if at == len(record):
            return [*fields, ""], ""


def _quoted(delimiter: str) -> re.Pattern[str]:
    # Possessive: a hostile run of quotes is scanned once. `re` keeps compiled patterns.
    return re.compile(rf' *"(?P<field>(?:[^"]++|"")*+)(?P<close>" *(?={re.escape(delimiter)}|\Z))?')


@dataclass(frozen=True)
class _Body:
    """Turn lines below a header (line, text and place of each) into cells."""

    delimiter: str
    faults: Faults
    width: int
    frame: pl.DataFrame
    quoted: bool
    is_last: bool

    def cells(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return line and cells of the rows that can be read, and the lines of a row that goes on in the next piece."""
        quoted = self.frame.filter(pl.col("text").str.contains('"', literal=True) & self.quoted)
        records, inside, end = self._records(quoted)
        plain = self.frame[:end].filter(~pl.col("line").is_in([*quoted["line"], *inside]))
        fits = plain["text"].str.count_matches(self.delimiter, literal=True) == self.width - 1
        others = ((line, text.split(self.delimiter)) for line, text, _ in plain.filter(~fits).iter_rows())
        rows = [(line, *fields[: self.width]) for line, fields in (*records, *others) if self._has_width(line, fields)]
        split = plain.filter(fits)["text"].str.split_exact(self.delimiter, self.width - 1)
        simple = split.struct.rename_fields([str(n) for n in range(self.width)]).struct.unnest()
        schema = {"line": pl.UInt32, **dict.fromkeys(simple.columns, pl.String)}
        odd = pl.DataFrame(rows, schema=schema, orient="row")
        cells = pl.concat([plain.filter(fits).select("line").hstack(simple), odd]).sort("line")
        stripped = pl.col(pl.String).str.strip_chars()
        return cells.with_columns(pl.when(stripped != "").then(stripped)), self.frame[end:].select("line", "text")

    def _records(self, quoted: pl.DataFrame) -> tuple[list[tuple[int, list[str]]], list[int], int]:
        """Return (line, fields) of the rows with quotes, the further lines that these span, and the lines read."""
        records: list[tuple[int, list[str]]] = []
        inside: list[int] = []
        end = -1
        for line, text, place in quoted.iter_rows():
            if place <= end:
                continue
            fields, fault = split_fields(text, self.delimiter)
            last = place
            if fault == UNCLOSED:
                fields, fault, last = self._join(text, place)
                if fault == UNCLOSED and not self.is_last and place + _FIELD_LINES > len(self.frame):
                    return records, inside, place
            if fault:
                self.faults.add(line, f"{fault}; double the quote, or remove it")
                continue
            records.append((line, fields))
            inside += self.frame["line"][place + 1 : last + 1].to_list()
            end = last
        return records, inside, len(self.frame)

    def _join(self, text: str, place: int) -> tuple[list[str], str, int]:
        """Return fields, fault and last place of a row whose quoted field goes on in the next lines."""
        texts, are_rows = [text], self._looks_like_row(text)
        for last, line in enumerate(self.frame["text"][place + 1 : place + _FIELD_LINES], start=place + 1):
            texts.append(line)
            are_rows = are_rows and self._looks_like_row(line)
            if '"' in line:
                fields, fault = split_fields("\n".join(texts), self.delimiter)
                if not fault and are_rows:
                    return [], f"a quoted field takes in what look like rows, to line {self.frame['line'][last]}", place
                if fault != UNCLOSED:
                    return fields, fault, last
        return [], UNCLOSED, place

    def _looks_like_row(self, line: str) -> bool:
        return line.count(self.delimiter) == self.width - 1

    def _has_width(self, line: int, fields: list[str]) -> bool:
        if len(fields) == self.width or (len(fields) > self.width and not any(map(str.strip, fields[self.width :]))):
            return True
        self.faults.add(line, f"{len(fields)} fields, wanted {self.width}; quote or correct it")
        return False
