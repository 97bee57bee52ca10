"""Lazy tables: nothing is made before it is looked at, and a file written in parts is that of the whole table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.lazy_table import LazyTable

SIZES = (5, 0, 3, 8, 1)  # rows of the parts; slices of four rows cross them


def parts() -> Iterator[pl.DataFrame]:
    start = 0
    for size in SIZES:
        ids = range(start, start + size)
        yield pl.DataFrame(
            {"id": [f"user {n}" for n in ids], "value": [n / 7 for n in ids]},
            schema={"id": pl.String, "value": pl.Float64},
        )
        start += size


def test_a_file_written_in_parts_is_that_of_the_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SLICE_ROWS", 4)
    table = LazyTable(parts)
    assert table.write(tmp_path / "parts.parquet", notes={"leaky": "False"})
    storage.write_table(tmp_path / "whole.parquet", pl.concat(parts()), notes={"leaky": "False"})
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert table.rows.height == sum(SIZES) and table.rows["id"].to_list()[-1] == "user 16"
    assert table.write(tmp_path / "looked_at.parquet", notes={"leaky": "False"})
    assert (tmp_path / "looked_at.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_rows_are_made_when_they_are_looked_at_and_kept_until_they_are_released() -> None:
    calls: list[int] = []

    def counted() -> Iterator[pl.DataFrame]:
        calls.append(len(calls))
        yield from parts()

    table = LazyTable(counted)
    assert calls == []
    assert table.rows is table.rows and calls == [0]
    table.release()
    assert table.rows.equals(pl.concat(parts())) and calls == [0, 1]


def test_a_table_without_columns_has_no_file_and_one_without_rows_has(tmp_path: Path) -> None:
    assert not LazyTable().write(tmp_path / "none.parquet") and not (tmp_path / "none.parquet").exists()
    assert not LazyTable.of(pl.DataFrame()).write(tmp_path / "none.parquet") and LazyTable().rows.is_empty()
    assert LazyTable.of(next(parts()).clear()).write(tmp_path / "empty.parquet")
    assert pl.read_parquet(tmp_path / "empty.parquet").schema == {"id": pl.String, "value": pl.Float64}


def test_a_file_is_read_when_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_table(tmp_path / "later.parquet", pl.concat(parts()))
    monkeypatch.chdir(tmp_path)
    table, other = LazyTable.in_file(Path("later.parquet")), LazyTable.in_file(tmp_path / "none.parquet")
    monkeypatch.chdir("/")
    assert table.rows.equals(pl.concat(parts()))
    with pytest.raises(InputError, match=r"none\.parquet is missing"):
        _ = other.rows


def test_a_file_that_was_replaced_or_removed_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "later.parquet"
    storage.write_table(file, pl.concat(parts()))
    table = LazyTable.in_file(file)
    assert table.rows.height == sum(SIZES)
    table.release()
    storage.write_table(file, pl.concat(parts()).reverse())
    for look in (lambda: table.rows, lambda: table.write(tmp_path / "copy.parquet")):
        with pytest.raises(InputError, match=r"later\.parquet was replaced since .*; load the run again"):
            look()
    assert LazyTable.in_file(file).rows["id"][0] == "user 16"
    file.unlink()
    with pytest.raises(InputError, match=r"later\.parquet is missing"):
        _ = table.rows
