"""What a backend of the mixed verbs must give: the reference's bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from mllmrec_kernels.mixed import MixedScores, rank_mixed, row_spread, score_mixed, topk_mixed

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
