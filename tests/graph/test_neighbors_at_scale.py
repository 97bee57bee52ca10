"""Neighbors where rows go in shards, and where a user has more items than are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR, cooccurrence_topk, topk_cosine

from mllmrec.graph import neighbors
from tests.blocks.in_process import blocks_in


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize(("rows", "k", "threshold"), [(150, 5, None), (150, 70, None), (130, 5, 0.3), (97, 3, 1.0)])
def test_lists_among_shards_are_those_among_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, include_self: bool, rows: int, k: int, threshold: float | None
) -> None:
    monkeypatch.setattr(neighbors, "_SHARD", 64)
    monkeypatch.setattr(neighbors, "_ROWS", 64)
    vectors = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    vectors[20:90] = vectors[3]  # more equal rows than places on a list, in two shards
    vectors[50] = 0
    options = {"threshold": threshold, "include_self": include_self}
    blocks = blocks_in(tmp_path)
    found = neighbors.by_vectors(vectors, k, None, blocks=blocks, **options)
    want = topk_cosine(vectors, k, **options)
    assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))
    assert blocks.counts["works"] == -(-rows // 64)


def test_of_a_power_user_so_many_items_count_spread_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "MOST_ITEMS", 3)
    owned = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 4], [4, 8], [1, 2, 3]]
    counted = [[0, 4, 8], *owned[1:]]

    def matrix(rows: list[list[int]]) -> CSR:
        users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return CSR.from_pairs(users, np.concatenate(rows), (len(rows), 10))

    R, want = matrix(owned), cooccurrence_topk(matrix(counted), 4)
    times = np.arange(R.nnz)
    in_window = cooccurrence_topk(matrix(counted), 4, window=4, times=np.array([0, 4, 8, 9, 10, 11, 12, 13, 14, 15]))
    for blocks in (None, blocks_in(tmp_path)):
        found = neighbors.by_users(R, 4, None, blocks=blocks)
        assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))
        near = neighbors.by_users(R, 4, None, blocks=blocks, times=times, window=4)
        assert all(np.array_equal(*pair) for pair in zip(near, in_window, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(in_window, want, strict=True))
    said: list[str] = []
    neighbors.note_power_users(R.indptr, lambda label, done, total: said.append(label))
    neighbors.note_power_users(np.array([0, 3, 6]), lambda label, done, total: said.append(label))
    assert said == ["1 users have more than 3 items; so many of each count as shared"]
