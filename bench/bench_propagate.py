"""normalise and propagate beside torch's and scipy's CSR products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.interactions import graph
from mllmrec_bench.peers import Case, one_layer, propagate, with_gradient
from mllmrec_kernels import CSR, normalize

from tests.kernels.sparse_cases import GRAPHS, Graph

SHARED = [case for case in GRAPHS if case.name in ("block and a bit", "embedding width")]


@pytest.fixture(scope="module")
def generated(sized: Callable[[int], int]) -> tuple[CSR, np.ndarray]:
    """50,000 nodes, 20 edges each, 384 features; a product does not care what the features are."""
    nodes = sized(50_000)
    return graph(nodes, 20), isotropic(nodes, 384)


def test_one_layer(compare: Callable[[Case], None], generated: tuple[CSR, np.ndarray]) -> None:
    edges, features = generated
    compare(one_layer(normalize(edges), features, data="generated"))


def test_normalise_two_layers_sum(compare: Callable[[Case], None], generated: tuple[CSR, np.ndarray]) -> None:
    compare(propagate(*generated, data="generated"))


def test_with_gradient(compare: Callable[[Case], None], generated: tuple[CSR, np.ndarray]) -> None:
    edges, features = generated
    compare(with_gradient(normalize(edges), features, data="generated"))


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_shared_cases(compare: Callable[[Case], None], case: Graph) -> None:
    compare(propagate(case.make(), case.features(), data=f"case {case.name}"))
