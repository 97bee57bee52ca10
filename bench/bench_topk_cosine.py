"""topk_cosine beside faiss and chunked torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.peers import Case, topk_cosine

from mllmrec.features.encode import normalize_rows
from tests.kernels.cases import VECTOR_CASES, VectorCase

SHARED = [case for case in VECTOR_CASES if case.n >= 500]


def without_torch(case: Case) -> Case:
    """At N=50,000 torch is timed without a threshold alone: with one it does the same work, for a minute more."""
    return replace(case, peers=tuple(peer for peer in case.peers if not peer.name.startswith("torch")))


def test_generated(compare: Callable[[Case], None], generated_vectors: tuple[str, np.ndarray]) -> None:
    name, vectors = generated_vectors
    compare(topk_cosine(vectors, 10, data=name))


def test_generated_with_threshold(compare: Callable[[Case], None], generated_vectors: tuple[str, np.ndarray]) -> None:
    name, vectors = generated_vectors
    compare(without_torch(topk_cosine(vectors, 10, 0.7, data=name)))


@pytest.mark.parametrize("threshold", [None, 0.7])
def test_real(compare: Callable[[Case], None], real_vectors: np.ndarray | None, threshold: float | None) -> None:
    if real_vectors is None:
        pytest.skip("amazon-scientific is not here")
    compare(topk_cosine(real_vectors, 10, threshold, data="amazon-scientific"))


@pytest.mark.parametrize("n", [2_000, 5_000, 10_000, 20_000])
def test_isotropic(compare: Callable[[Case], None], sized: Callable[[int], int], n: int) -> None:
    compare(topk_cosine(isotropic(sized(n), 384), 10, data="isotropic"))


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_shared_cases(compare: Callable[[Case], None], case: VectorCase) -> None:
    compare(topk_cosine(normalize_rows(case.items()), case.k, case.threshold, data=f"case {case.name}"))
