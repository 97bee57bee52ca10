"""A peer does the same work: its answer is mllmrec's, on input without ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mllmrec_bench import interactions, peers
from mllmrec_bench.bench import OPS, OURS, Settings, find_ops, measure, methods
from mllmrec_bench.datasets import GeneratedData, Sizes, Source, sampled_users
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.peers import Case
from mllmrec_bench.peers.case import library
from mllmrec_bench.timing import is_installed
from mllmrec_kernels import CSR, normalize

from mllmrec.errors import ConfigError
from mllmrec.models.ridge import ridge_support

VECTORS = isotropic(300, 24)
MATRIX = interactions.interactions(120, 60, 900)
GRAPH = interactions.graph(80, 6)
FEATURES = isotropic(80, 20)
USERS, ITEMS = interactions.towers(120, 60, 12)
KEPT, HELD = interactions.held_out(MATRIX)


def ids_of(found: object) -> np.ndarray:
    """Neighbour lists of any peer as sets of columns, [rows, columns] of 0 and 1, each row's own id left out."""
    first = found[0] if isinstance(found, tuple) else found
    lists = np.asarray(first)
    marks = np.zeros((len(lists), 400), dtype=int)
    for row, ids in enumerate(lists):
        marks[row, ids[ids >= 0]] = 1
    return marks


def same_lists(case: Case) -> None:
    ours, *others = methods(case)[0]
    wanted = ids_of(ours.run())
    for other in others:
        np.testing.assert_array_equal(ids_of(other.run()), wanted, err_msg=other.name)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_neighbours(threshold: float | None) -> None:
    same_lists(peers.topk_cosine(VECTORS, 7, threshold, data="x"))


def test_recommended_lists() -> None:
    same_lists(peers.topk_dot(USERS, ITEMS, KEPT, 9, threads=1, data="x"))


def test_ranks_are_the_places_in_the_peers_lists() -> None:
    ours, *others = methods(peers.rank_heldout(USERS, ITEMS, KEPT, HELD, 40, threads=1, data="x"))[0]
    ranks = np.asarray(ours.run())
    for other in others:
        lists = np.asarray(other.run()[0])
        for user, item, rank in zip(HELD.rows(), HELD.indices, ranks, strict=True):
            assert rank >= 40 or lists[user, rank] == item, other.name


def best_scores(case_ids: np.ndarray, score: Callable[[int, int], float]) -> np.ndarray:
    return np.array([sorted((score(row, i) for i in ids if i >= 0), reverse=True) for row, ids in enumerate(case_ids)])


def test_cooccurrence_lists_have_the_same_jaccards() -> None:
    """Jaccards tie, so scores are compared, not ids."""
    ours, scipy, *_ = methods(peers.cooccurrence_topk(MATRIX, 5, threads=1, data="x"))[0]
    dense = MATRIX.to_scipy().toarray()
    shared = dense.T @ dense
    degrees = shared.diagonal()

    def jaccard(i: int, j: int) -> float:
        return float(shared[i, j] / (degrees[i] + degrees[j] - shared[i, j]))

    wanted = best_scores(np.asarray(ours.run()[0]), jaccard)
    np.testing.assert_allclose(best_scores(np.asarray(scipy.run()), jaccard), wanted)


@pytest.mark.parametrize("name", ["sparse_dot_topn", "implicit CosineRecommender"])
def test_other_cooccurrence_peers_find_what_they_say(name: str) -> None:
    peer = next(p for p in peers.cooccurrence_topk(MATRIX, 5, threads=1, data="x").peers if p.name == name)
    if not is_installed(peer.module):
        pytest.skip(f"{name} is not installed")
    found = peer.prepare()().toarray()
    dense = MATRIX.to_scipy().toarray()
    shared = dense.T @ dense
    if "cosine" in peer.differs:
        shared = shared / np.sqrt(np.outer(shared.diagonal(), shared.diagonal()))
    rows = np.sort(shared, axis=1)[:, -6:]
    np.testing.assert_allclose(np.sort(found, axis=1)[:, -6:], rows, atol=1e-6)


@pytest.mark.parametrize("make", [peers.one_layer, peers.propagate, peers.with_gradient])
def test_propagation(make: Callable[..., Case]) -> None:
    graph = GRAPH if make is peers.propagate else normalize(GRAPH)
    ours, *others = methods(make(graph, FEATURES, data="x"))[0]
    wanted = torch.as_tensor(ours.run()).numpy()
    assert others
    for other in others:
        # float32 sums of at most 20 terms of size 1, in another order
        np.testing.assert_allclose(torch.as_tensor(other.run()).numpy(), wanted, atol=1e-5, err_msg=other.name)


def test_negatives_are_never_the_users_own() -> None:
    users = MATRIX.rows()
    for method in methods(peers.sample_negatives(MATRIX, users, data="x"))[0]:
        drawn = np.asarray(method.run())
        assert drawn.shape == users.shape
        own = MATRIX.to_scipy().toarray()
        assert not own[users, drawn].any(), method.name


def test_ridge_weights() -> None:
    support = ridge_support(VECTORS[:60], MATRIX, 4, 5)
    assert len(set(np.diff(support.indptr))) > 1
    ours, *others = methods(peers.ridge_weights(MATRIX, VECTORS[:60], support, data="x"))[0]
    wanted = ours.run().data
    assert len(others) == 2
    for other in others:
        # float64 throughout, so a float32 step apart at most
        np.testing.assert_allclose(other.run(), wanted, rtol=2**-23, atol=1e-9, err_msg=other.name)


def generated() -> GeneratedData:
    return GeneratedData(Sizes(items=90, users=100, interactions=900, edges=5, dim=8), Source("test", lambda: VECTORS))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_is_measured_beside_a_peer(op) -> None:
    settings = Settings(k=3, rounds=2, threads=1, length=5)
    for case in op.cases(generated(), settings):
        done = measure(case, settings)
        assert case.op == op.name
        assert done.ours.name == OURS and len(done.ours.seconds) == 2
        assert done.strongest in done.others
        assert len(done.others) + len(done.absent) == len(case.peers)


def test_the_test_file_of_every_op_is_there(request: pytest.FixtureRequest) -> None:
    assert all((request.config.rootpath / "tests" / "kernels" / op.tests).is_file() for op in OPS)


def test_a_missing_peer_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec_bench.bench.is_installed", lambda module: module not in ("faiss", "implicit"))
    found, absent = methods(peers.topk_cosine(VECTORS, 3, 0.5, data="x"))
    assert [method.name for method in found] == [OURS, "torch matmul + topk"]
    assert {peer.name for peer in absent} == {"faiss IndexFlatIP", "faiss range_search"}
    with pytest.raises(ConfigError, match=r"^nowhere is not installed, .*: pip install 'mllmrec\[bench\]'$"):
        library("nowhere.at_all")


def test_an_unknown_op_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Exception, match=r"there is no op 'topk_cosin' \(did you mean 'topk_cosine'\?\)"):
        find_ops("topk_cosin")


def test_users_who_have_everything_get_no_negatives() -> None:
    from mllmrec.errors import InputError

    whole = generated()
    whole.user_items = CSR.from_pairs(np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3), (3, 2))
    with pytest.raises(InputError, match="every user has seen every item"):
        sampled_users(whole)
