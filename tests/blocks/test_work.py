"""Tables, blocks and part files: cut and put together again, torn files made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR

from mllmrec.blocks.part_files import PartFiles, as_bytes
from mllmrec.blocks.stage import check_engine
from mllmrec.blocks.work import Block, Work, array_digest, cut, find_function, flatten, rows_a_block, unflatten
from mllmrec.errors import ConfigError
from mllmrec.graph.neighbors import vectors_block

MATRIX = CSR(np.array([0, 2, 2, 3]), np.array([1, 3, 0], np.int32), np.array([0.5, 2, 4], np.float32), 4)
TABLES = {"matrix": MATRIX, "texts": ("grün", "", "\ud800x"), "numbers": np.arange(6).reshape(3, 2)}


def test_a_block_gets_its_own_rows_of_every_kind_of_table() -> None:
    own = unflatten(cut(flatten(TABLES), (1, 3)))
    matrix = own["matrix"]
    assert isinstance(matrix, CSR) and matrix.shape == (2, 4)
    assert matrix.indptr.tolist() == [0, 0, 1] and matrix.indices.tolist() == [0] and matrix.values().tolist() == [4.0]
    assert own["texts"] == ("", "\ud800x")
    assert np.array_equal(own["numbers"], [[2, 3], [4, 5]])
    whole = unflatten(flatten(TABLES))
    assert whole["texts"] == TABLES["texts"]
    binary = unflatten(flatten({"m": CSR(MATRIX.indptr, MATRIX.indices, None, 4)}))["m"]
    assert isinstance(binary, CSR) and binary.data is None


def test_blocks_depend_on_the_rows_alone() -> None:
    work = Work(vectors_block, "x", 130, rows_a_block(130, 1000))
    assert work.spans == [(0, 64), (64, 128), (128, 130)]
    assert Work(vectors_block, "x", 0, 64).spans == [(0, 0)]
    assert rows_a_block(1_000_000, 16_384) == 16_384 and rows_a_block(64_000, 16_384) == 2_000


def test_a_function_is_found_by_its_name_in_this_package_alone() -> None:
    name = Work(vectors_block, "x", 1, 1).function_name
    assert name == "mllmrec.graph.neighbors:vectors_block" and find_function(name) is vectors_block
    with pytest.raises(ValueError, match="'os:system' is no function of mllmrec"):
        find_function("os:system")


def test_what_blocks_share_is_made_once_a_work() -> None:
    block, made = Block(0, 1, {}, {}, {}), []
    for _ in range(2):
        assert block.once("n", lambda: made.append(1) or 7) == 7
    assert made == [1]


def test_equal_bytes_of_another_shape_or_type_have_another_digest() -> None:
    four = np.zeros(4, np.int32)
    digests = {array_digest(array) for array in (four, four.reshape(2, 2), four.view(np.float32))}
    assert len(digests) == 3 and array_digest(four) == array_digest(np.zeros(8, np.int32)[::2])


def test_part_files_are_joined_in_order_and_torn_ones_are_no_parts(tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "work")
    assert parts.find(3) == set()
    for block in (2, 0, 1):
        parts.write(block, as_bytes({"ids": np.full((block, 2), block)}))
    assert parts.read()["ids"][:, 0].tolist() == [1, 2, 2]
    files = sorted(parts.folder.iterdir())
    with files[1].open("r+b") as file:
        file.truncate(30)
    (parts.folder / ".mllmrec-0123456789abcdef.tmp").write_bytes(b"left by a kill")
    (parts.folder / "notes.txt").write_text("somebody's")
    again = PartFiles(tmp_path / "work")
    assert again.find(3) == {0, 2} and again.torn == 1
    assert {file.name[:8] for file in parts.folder.iterdir()} == {"00000000", "00000002", "notes.tx"}
    fewer = PartFiles(tmp_path / "work")
    assert fewer.find(2) == {0} and fewer.torn == 1  # a file of a block that the work has not


def test_an_engine_that_is_none_is_refused_with_the_nearest() -> None:
    for name in ("", "local", "ray", "ray://host:10001"):
        check_engine(name)
    with pytest.raises(ConfigError, match=r"no engine 'locale' \(did you mean 'local'\?\); --on takes one of local, "):
        check_engine("locale")
