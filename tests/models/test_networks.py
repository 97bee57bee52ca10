"""Networks against the equations of their papers, written out densely; FREEDOM's pruning; whole trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR

from mllmrec.config import GraphConfig, ModelConfig, TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import build_graph
from mllmrec.models.bpr import BPRNetwork
from mllmrec.models.fitting import fit_model
from mllmrec.models.freedom import FREEDOMNetwork, edge_chances
from mllmrec.models.lightgcn import LightGCNNetwork
from mllmrec.models.mllmrec import MLLMRecNetwork
from mllmrec.models.network_model import NetworkModel, bipartite, norms
from mllmrec.models.registry import read_settings
from mllmrec.models.vbpr import VBPRNetwork
from mllmrec.training.loop import Network

U, N, D = 6, 5, 4  # users, items, width
R = CSR.from_pairs(np.array([0, 0, 1, 2, 3, 3, 4]), np.array([0, 1, 1, 3, 0, 4, 2]), (U, N))
FEATURES = torch.randn(N, 7, generator=torch.Generator().manual_seed(0))
BATCH = torch.tensor([0, 3, 3, 4]), torch.tensor([1, 0, 4, 2]), torch.tensor([3, 2, 1, 0])


def symmetric(A: np.ndarray) -> np.ndarray:
    """D^-1/2 A D^-1/2."""
    d = A.sum(1)
    scale = np.divide(1, np.sqrt(d), out=np.zeros(len(d)), where=d > 0)
    return scale[:, None] * A * scale[None, :]


def user_item_adjacency() -> np.ndarray:
    A = np.zeros((U + N, U + N))
    A[R.rows(), U + R.indices] = 1
    return symmetric(A + A.T)


def item_graph() -> CSR:
    weights = np.float32([0.5, 0.5, 0.2])
    return CSR(np.array([0, 1, 2, 3, 3, 3]), np.int32([1, 0, 4]), weights, N)


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def bpr(S: np.ndarray) -> float:
    """The mean of -log sigma(y_ui - y_uj) over BATCH, from a score matrix."""
    u, i, j = (ids.numpy() for ids in BATCH)
    return float(np.log1p(np.exp(-(S[u, i] - S[u, j]))).mean())


def scores(network: Network) -> np.ndarray:
    users, items = map(numpy, network.vectors())
    return users @ items.T


def loss_of(network: Network) -> float:
    return float(network.loss(*BATCH).detach())


def test_bpr_mf() -> None:
    network = BPRNetwork(U, N, D, decay=0.3)
    torch.nn.init.normal_(network.bias)
    p, q, b = map(numpy, (network.users, network.items, network.bias))
    S = p @ q.T + b.T
    np.testing.assert_allclose(scores(network), S, rtol=1e-5)
    u, i, j = (ids.numpy() for ids in BATCH)
    squares = ((p[u] ** 2).sum() + (q[i] ** 2).sum() + (q[j] ** 2).sum()) / (2 * len(u))
    assert loss_of(network) == pytest.approx(bpr(S) + 0.3 * squares, rel=1e-5)


def test_without_a_bias_and_with_norms_bpr_mf_is_that_of_mmrec() -> None:
    network = BPRNetwork(U, N, D, 0.3, norms, bias=False)
    p, q = map(numpy, (network.users, network.items))
    np.testing.assert_allclose(scores(network), p @ q.T, rtol=1e-5)
    u, i, j = (ids.numpy() for ids in BATCH)
    lengths = sum(np.linalg.norm(table) for table in (p[u], q[i], q[j])) / len(u)
    loss = network.loss(*BATCH)
    assert float(loss.detach()) == pytest.approx(bpr(p @ q.T) + 0.3 * lengths, rel=1e-5)
    loss.backward()
    assert network.bias.grad is None


def test_vbpr_is_equation_4_of_its_paper() -> None:
    network = VBPRNetwork(U, FEATURES, 2 * D, decay=0.0)
    for bias in (network.bias, network.feature_bias):
        torch.nn.init.normal_(bias)
    f, E, g_u, g_i, t_u = map(
        numpy, (FEATURES, network.project, network.user_ids, network.item_ids, network.user_tastes)
    )
    S = g_u @ g_i.T + t_u @ (f @ E).T + (numpy(network.bias) + f @ numpy(network.feature_bias)).T
    np.testing.assert_allclose(scores(network), S, rtol=1e-4, atol=1e-6)
    assert loss_of(network) == pytest.approx(bpr(S), rel=1e-5)


@pytest.mark.parametrize("refined", [False, True])
def test_lightgcn_is_the_mean_of_its_layers_and_gradients_flow_back_through_all(refined: bool) -> None:
    network = LightGCNNetwork(R, D, layers=3, decay=0.0, item_graph=item_graph() if refined else None)
    A, E = user_item_adjacency(), numpy(network.table)
    mean = sum(np.linalg.matrix_power(A, k) @ E for k in range(4)) / 4
    items = mean[U:] + (item_graph().to_scipy().toarray() @ E[U:] if refined else 0)
    np.testing.assert_allclose(scores(network), mean[:U] @ items.T, rtol=1e-4, atol=1e-7)
    loss = network.loss(*BATCH)
    assert float(loss.detach()) == pytest.approx(bpr(mean[:U] @ items.T), rel=1e-5)
    loss.backward()

    table = torch.tensor(E, requires_grad=True)
    layers = sum(torch.tensor(np.linalg.matrix_power(A, k)) @ table for k in range(4)) / 4
    h = layers[U:] + (torch.tensor(item_graph().to_scipy().toarray()).double() @ table[U:] if refined else 0)
    u, i, j = BATCH
    torch.nn.functional.softplus(-(layers[:U][u] * (h[i] - h[j])).sum(1)).mean().backward()
    np.testing.assert_allclose(network.table.grad, table.grad, rtol=1e-4, atol=1e-7)


def test_torch_compile_sees_through_propagation() -> None:
    network = LightGCNNetwork(R, D, layers=2, decay=0.1, item_graph=item_graph())
    loss = network.loss(*BATCH)
    loss.backward()
    gradient, network.table.grad = network.table.grad, None
    compiled = torch.compile(network.loss, backend="aot_eager", fullgraph=True)(*BATCH)  # a break would raise
    compiled.backward()
    torch.testing.assert_close(compiled, loss)
    torch.testing.assert_close(network.table.grad, gradient)


def freedom(keep: float) -> FREEDOMNetwork:
    return FREEDOMNetwork(R, FEATURES, item_graph(), D, layers=2, decay=0.0, keep=keep, feature_loss=0.5)


def test_freedom_scores_by_the_whole_graph_and_adds_the_loss_of_projected_features() -> None:
    network = freedom(keep=1.0)
    A, E = user_item_adjacency(), numpy(network.table)
    mean = sum(np.linalg.matrix_power(A, k) @ E for k in range(3)) / 3
    items = mean[U:] + item_graph().to_scipy().toarray() @ E[U:]
    np.testing.assert_allclose(scores(network), mean[:U] @ items.T, rtol=1e-4, atol=1e-7)
    network.start_epoch(np.random.default_rng(0))  # keeps every edge here
    projected = numpy(FEATURES) @ numpy(network.project.weight).T + numpy(network.project.bias)
    expected = bpr(mean[:U] @ items.T) + 0.5 * bpr(mean[:U] @ projected.T)
    assert loss_of(network) == pytest.approx(expected, rel=1e-5)


def test_freedom_prunes_anew_each_epoch_and_spares_the_edges_of_low_degree() -> None:
    chances = edge_chances(R)
    by_user, by_item = np.bincount(R.rows()), np.bincount(R.indices)
    wanted = 1 / np.sqrt(by_user[R.rows()] * by_item[R.indices])
    np.testing.assert_allclose(chances, wanted / wanted.sum())
    network = freedom(keep=3 / 7)
    epochs = []
    for seed in range(400):
        network.start_epoch(np.random.default_rng(seed))
        kept = network._pruned
        assert kept.nnz == 2 * 3  # both directions
        epochs.append([item + U in kept.row(user) for user, item in zip(R.rows(), R.indices, strict=True)])
    share = np.mean(epochs, axis=0)
    lonely = (by_user[R.rows()] == 1) & (by_item[R.indices] == 1)
    assert share[lonely].min() > share[~lonely].max()
    assert len({tuple(row) for row in epochs}) > 5


def test_the_user_item_graph_is_symmetrically_normalised() -> None:
    np.testing.assert_allclose(bipartite(R).to_scipy().toarray(), user_item_adjacency(), rtol=1e-6)


def test_mllmrec_with_user_item_propagation_adds_the_propagated_unit_rows() -> None:
    users = torch.randn(U, 7, generator=torch.Generator().manual_seed(1))
    network = MLLMRecNetwork(users, FEATURES, D, user_items=R, user_item_layers=2)
    h = np.concatenate([numpy(network.user(users)), numpy(network.item(FEATURES))])
    Z, A = h / np.linalg.norm(h, axis=1, keepdims=True), user_item_adjacency()
    h = h + Z + A @ Z + A @ A @ Z
    np.testing.assert_allclose(scores(network), h[:U] @ h[U:].T, rtol=1e-4, atol=1e-6)
    assert loss_of(network) == pytest.approx(bpr(h[:U] @ h[U:].T), rel=1e-4)


def test_a_batch_of_distinct_rows_has_the_loss_of_all_rows() -> None:
    users = torch.randn(U, 7, generator=torch.Generator().manual_seed(1))
    network = MLLMRecNetwork(users, FEATURES, D, ids=True)
    assert loss_of(network) == pytest.approx(bpr(scores(network)), rel=1e-5)


SMALL = TrainConfig(dim=8, epochs=3, batch_size=256)
KINDS = [
    read_settings({"kind": "bpr"}),
    read_settings({"kind": "vbpr"}),
    read_settings({"kind": "lightgcn", "refined": True}),
    read_settings({"kind": "freedom"}),
    read_settings({"kind": "mllmrec", "ids": True, "user_item_layers": 1, "reasoning": False}),
]


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.kind)
def test_each_kind_learns_and_repeats_itself(dataset: Dataset, vectors: np.ndarray, model: ModelConfig) -> None:
    seen = dataset.histories()
    features = Features.of_items(vectors, seen)
    graph = build_graph(vectors, seen, GraphConfig(threshold=0.2))
    rate = SMALL.model_copy(update={"learning_rate": 1e-2})
    first, second = (fit_model(features, graph, seen, dataset.matrix("valid"), model, rate, seed=4) for _ in range(2))
    assert isinstance(first, NetworkModel) and isinstance(second, NetworkModel)
    assert first.curve[-1].loss < first.curve[0].loss
    assert first.users.tobytes() == second.users.tobytes() and first.items.tobytes() == second.items.tobytes()
