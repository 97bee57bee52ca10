"""The long CSV: its columns, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mllmrec_bench.results import Result, Stamp, append, newest, read

from mllmrec.errors import InputError

RESULT = Result(
    "topk_cosine", "faiss, flat", 'N=1,000 "x"', "seconds", 0.1234567, 0.1, 2e-07, 5, "cpu, 2 cores", "numpy 2", "abc"
)


def test_the_columns_are_those_of_the_schema(tmp_path: Path) -> None:
    append(tmp_path / "r.csv", [RESULT])
    header = (tmp_path / "r.csv").read_text().splitlines()[0]
    assert header == "op,backend,case,metric,median,p20,p80,rounds,machine,versions,commit"


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.csv"
    append(path, [RESULT, replace(RESULT, metric="extra MiB")])
    append(path, [replace(RESULT, median=0.5)])
    append(path, [])
    lines = read(path)
    assert [line.median for line in lines] == [0.123457, 0.123457, 0.5]
    assert lines[0] == replace(RESULT, median=0.123457)
    assert [line.median for line in newest(lines)] == [0.5, 0.123457]


def test_another_file_is_neither_read_nor_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user,item\n1,2\n")
    for call in (lambda: read(path), lambda: append(path, [RESULT])):
        with pytest.raises(InputError, match=r"shop\.csv is not a CSV of results: its columns are user, item"):
            call()
    assert path.read_text() == "user,item\n1,2\n"
    with pytest.raises(InputError, match=r"none\.csv is missing"):
        read(tmp_path / "none.csv")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    append(path, [RESULT])
    with path.open("a") as file:
        file.write("topk_cosine,mllmrec,N=1\n")
    with pytest.raises(InputError, match=r"r\.csv:3 is no line of results"):
        read(path)


def test_a_stamp_says_where_and_with_what() -> None:
    stamp = Stamp.now(2)
    assert stamp.machine.endswith("2 threads")
    assert "numpy 2" in stamp.versions and "numba 0" in stamp.versions
    assert stamp.commit
