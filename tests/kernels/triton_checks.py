"""What a Triton kernel must give, on a device or in the interpreter: the reference's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mllmrec_kernels import propagate, rank_heldout, sample_negatives, topk_cosine, topk_dot
from mllmrec_kernels.topk.reference import TopK

from tests.kernels.cases import VectorCase, random_pairs, split_pairs
from tests.kernels.sparse_cases import Graph, Interactions


def poison(monkeypatch: Any) -> None:
    """Whatever is allocated on a device and not written shows up as NaN, or as an absurd integer."""
    empty, empty_like = torch.empty, torch.empty_like

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max // 2)

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: spoilt(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: spoilt(empty_like(*args, **kwargs)))


def assert_same(got: tuple[torch.Tensor, torch.Tensor], wanted: TopK) -> None:
    np.testing.assert_array_equal(got[0].cpu().numpy(), wanted[0])
    np.testing.assert_array_equal(got[1].cpu().numpy(), wanted[1])
    assert (got[0].dtype, got[1].dtype) == (torch.int32, torch.float32)


def check_cosine(case: VectorCase, device: str, **options: Any) -> None:
    x, asked = case.items(), {"threshold": case.threshold, **options}
    got = topk_cosine(torch.from_numpy(x).to(device), case.k, backend="triton", **asked)
    asked.pop("max_bytes", None)
    assert got[0].device.type == device
    assert_same(got, topk_cosine(x, case.k, backend="reference", **asked))


def check_queries(case: VectorCase, device: str) -> None:
    q, x = case.queries(), case.items()
    tensors = torch.from_numpy(q).to(device), torch.from_numpy(x).to(device)
    got = topk_cosine(tensors[1], case.k, queries=tensors[0], threshold=case.threshold, backend="triton")
    assert_same(got, topk_cosine(x, case.k, queries=q, threshold=case.threshold, backend="reference"))


def check_dot(case: VectorCase, device: str, *, share: float, max_bytes: int | None = None) -> None:
    """`share` of the pairs is excluded."""
    q, x = case.queries(), case.items()
    exclude = random_pairs(case.rng(), (len(q), len(x)), share) if share else None
    tensors = torch.from_numpy(q).to(device), torch.from_numpy(x).to(device)
    got = topk_dot(*tensors, case.k, exclude=exclude, backend="triton", max_bytes=max_bytes)
    assert_same(got, topk_dot(q, x, case.k, exclude=exclude, backend="reference"))


def check_rank(case: VectorCase, device: str, max_bytes: int | None = None) -> None:
    users, items = case.queries(), case.items()
    sparse = split_pairs(case.rng(), (len(users), len(items)))
    tensors = torch.from_numpy(users).to(device), torch.from_numpy(items).to(device)
    got = rank_heldout(*tensors, *sparse, backend="triton", max_bytes=max_bytes)
    assert (got.dtype, got.device.type) == (torch.int32, device)
    np.testing.assert_array_equal(got.cpu().numpy(), rank_heldout(users, items, *sparse, backend="reference"))


def check_propagate(case: Graph, device: str, dtype: type, layers: int, combine: str) -> None:
    graph, features = case.make(), case.features(dtype)
    wanted = propagate(graph, features, layers=layers, combine=combine, backend="reference")
    tensor = torch.from_numpy(features).to(device)
    got = propagate(graph, tensor, layers=layers, combine=combine, backend="triton")
    assert (got.dtype, got.device.type) == (tensor.dtype, device)
    # Rounding of the longest sum, once a layer, and two units for the division of the mean.
    longest = int(np.diff(graph.indptr).max(initial=0))
    rounding = (longest + 4) * max(layers, 1) * float(np.finfo(dtype).eps)
    largest = float(np.abs(wanted).max(initial=0))
    np.testing.assert_allclose(got.cpu().numpy(), wanted, rtol=0, atol=rounding * largest)
    again = propagate(graph, tensor, layers=layers, combine=combine, backend="triton")
    np.testing.assert_array_equal(again.cpu().numpy(), got.cpu().numpy())


def check_sample(case: Interactions, device: str, n: int, dtype: type = np.int64) -> None:
    user_items = case.make()
    users = np.random.default_rng(0).integers(0, max(user_items.n_rows, 1), n if user_items.n_rows else 0).astype(dtype)
    wanted = sample_negatives(user_items, users, generator=np.random.default_rng(5), backend="reference")
    tensor = torch.from_numpy(users).to(device)
    got = sample_negatives(user_items, tensor, generator=np.random.default_rng(5), backend="triton")
    assert (got.dtype, got.device.type) == (torch.int32, device)
    np.testing.assert_array_equal(got.cpu().numpy(), wanted)
