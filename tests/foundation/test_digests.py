"""Hashes of files: of each what SHA-256 says, in the order that the files were named in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mllmrec.foundation import digests


@pytest.fixture
def hashes(tmp_path: Path) -> dict[str, str]:
    """Name -> SHA-256 of files of falling and rising sizes."""
    contents = {name: name.encode() * count for name, count in (("b", 3), ("a", 200_000), ("empty", 0), ("c", 70))}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_files_are_hashed_in_the_order_they_are_named(tmp_path: Path, hashes: dict[str, str]) -> None:
    assert digests.hash_files(tmp_path / name for name in hashes) == list(hashes.values())
    assert digests.hash_files([]) == []


def test_a_folder_is_unchanged_only_if_each_file_is(tmp_path: Path, hashes: dict[str, str]) -> None:
    assert digests.are_unchanged(tmp_path, hashes)
    assert not digests.are_unchanged(tmp_path, {**hashes, "absent": hashes["a"]})
    (tmp_path / "c").write_bytes(b"c" * 71)
    assert not digests.are_unchanged(tmp_path, hashes)
