"""What a backend of the mixed verbs must give: the reference's bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from mllmrec_kernels.mixed import MixedItems, MixedScores, rank_mixed, row_spread, score_mixed, topk_mixed

from tests.kernels.mixed_cases import MixedCase


def on_device(scores: MixedScores, device: str) -> MixedScores:
    """Return the scores with their vectors as tensors."""
    if scores.user_vectors is None:
        return scores
    users, items = (torch.from_numpy(vectors).to(device) for vectors in (scores.user_vectors, scores.item_vectors))
    return replace(scores, user_vectors=users, item_vectors=items)


def check_triton(case: MixedCase, device: str, max_bytes: int | None = None) -> None:
    """Compare ranks, lists, scores and spreads with the reference."""
    scores, (exclude, heldout) = case.scores(), case.pairs()
    tensors = on_device(scores, device)

    def host(result: torch.Tensor | np.ndarray) -> np.ndarray:
        if isinstance(result, torch.Tensor):
            assert result.device.type == device
            return result.cpu().numpy()
        assert scores.user_vectors is None
        return result

    ranks = host(rank_mixed(tensors, exclude, heldout, backend="triton", max_bytes=max_bytes))
    assert ranks.dtype == np.int32
    np.testing.assert_array_equal(ranks, rank_mixed(scores, exclude, heldout, backend="reference"))
    for excluding in (exclude, None):
        lists = topk_mixed(tensors, case.k, exclude=excluding, backend="triton", max_bytes=max_bytes)
        expected = topk_mixed(scores, case.k, exclude=excluding, backend="reference")
        for got, right in zip(map(host, lists), expected, strict=True):
            assert got.dtype == right.dtype
            np.testing.assert_array_equal(got, right)
    values = host(score_mixed(tensors, heldout, backend="triton", max_bytes=max_bytes))
    np.testing.assert_array_equal(values, score_mixed(scores, heldout, backend="reference"))
    sparse = scores.user_items, scores.item_weights
    np.testing.assert_array_equal(
        row_spread(*sparse, backend="triton", max_bytes=max_bytes), row_spread(*sparse, backend="reference")
    )


def check_kept_items(case: MixedCase, device: str) -> None:
    """Compare two blocks of users, whose items are copied to the device once, with the reference over all users."""
    scores, (exclude, heldout) = case.scores(), case.pairs()
    items = MixedItems(scores.item_weights, scores.item_vectors)
    users = np.arange(case.users)
    found = []
    for rows in (users[: case.users // 2], users[case.users // 2 :]):
        block = replace(replace(scores, item_weights=items, item_vectors=None).take(rows), item_vectors=None)
        known, held = exclude.take_rows(rows), heldout.take_rows(rows)
        lists = topk_mixed(block, case.k, exclude=known, backend="triton")
        found.append((rank_mixed(block, known, held, backend="triton"), *lists))
    lists = topk_mixed(scores, case.k, exclude=exclude, backend="reference")
    wanted = rank_mixed(scores, exclude, heldout, backend="reference"), *lists
    for parts, whole in zip(zip(*found, strict=True), wanted, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    kept = [items.on_device(one) for one in items._on_device]
    assert [copy.weights[0].device.type for copy in kept] == [device]
