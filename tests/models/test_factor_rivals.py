"""Factor models and AlphaRec against their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR

from mllmrec.config import TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.models import FitContext, ials
from mllmrec.models.alpharec import AlphaRecConfig, AlphaRecNetwork
from mllmrec.models.elsa import ELSA, reconstruction_loss
from mllmrec.models.ials import IALS, _solve_blocks, solve_side

U, N = 6, 5
R = CSR.from_pairs(np.array([0, 0, 1, 2, 3, 3, 4]), np.array([0, 1, 1, 3, 0, 4, 2]), (U, N))


def objective(P: np.ndarray, Q: np.ndarray, share: float, lam: float, prior: np.ndarray) -> float:
    """The rows' part of the objective of iALS; see ials.py."""
    X, S = R.to_scipy().toarray(), P @ Q.T
    weights = lam * (X.sum(axis=1) + share * X.shape[1])
    return (X * (1 - S) ** 2).sum() + share * (S**2).sum() + (weights[:, None] * (P - prior) ** 2).sum()


def test_blocks_of_columns_reach_the_exact_solution_and_never_climb() -> None:
    generator = np.random.default_rng(0)
    Q, P, prior = (generator.standard_normal((n, 6)).astype(np.float32) for n in (N, U, U))
    exact = solve_side(R, Q, 0.1, 0.05, prior)
    reached = [objective(P, Q, 0.1, 0.05, prior)]
    for _ in range(300):
        P = _solve_blocks(R, Q, P, 0.1, 0.05, 2, prior)
        reached.append(objective(P, Q, 0.1, 0.05, prior))
    assert (np.diff(reached) <= 1e-5).all()
    np.testing.assert_allclose(P, exact, atol=2e-3)
    one = _solve_blocks(R, Q, np.zeros_like(P), 0.1, 0.05, 6, prior)  # one block is the exact step
    np.testing.assert_allclose(one, exact, rtol=1e-3, atol=1e-4)


def test_a_wide_ials_in_blocks_fits_as_well_as_whole_systems(dataset: Dataset) -> None:
    whole, blocks = (IALS(factors=24, block=block, iterations=30).fit(dataset.train, seed=1) for block in (24, 8))
    X = dataset.train.to_scipy().toarray()
    errors = [np.abs(X - model.users @ model.items.T)[X > 0].mean() for model in (whole, blocks)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_fits_the_same_ials(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding of float32 at a condition of some hundred, in each of ten half-sweeps."""
    monkeypatch.setattr(ials, "_PAYS", 0)
    contexts = (FitContext(train=TrainConfig(device=name)) for name in ("cuda", "cpu"))
    fitted = [IALS(factors=16, iterations=5, context=context).fit(dataset.train, seed=1) for context in contexts]
    one, other = (model.users @ model.items.T for model in fitted)
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max())


def test_elsas_loss_is_that_of_unit_rows_without_the_item_itself() -> None:
    generator = np.random.default_rng(1)
    A, X = generator.standard_normal((N, 3)), R.to_scipy().toarray().astype(np.float64)
    rows = A / np.linalg.norm(A, axis=1, keepdims=True)
    S = X @ (rows @ rows.T - np.eye(N))
    kept = [0, 2, 3]  # of one item nothing is predicted by itself
    expected = np.mean([((X[u] / np.linalg.norm(X[u]) - S[u] / np.linalg.norm(S[u])) ** 2).sum() for u in kept])
    loss = reconstruction_loss(torch.tensor([0, 1, 3, 0, 4]), torch.tensor([0, 2, 3]), torch.from_numpy(A))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_elsa_scores_by_its_factors_stops_by_validation_and_repeats_itself(dataset: Dataset) -> None:
    valid = dataset.matrix("valid")
    first, second = (ELSA(factors=16, epochs=30).fit(dataset.train, valid=valid, seed=4) for _ in range(2))
    assert first.items.tobytes() == second.items.tobytes()
    np.testing.assert_allclose(np.linalg.norm(first.items, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(first.users, dataset.train.to_scipy() @ first.items, rtol=1e-5)
    assert 5 <= first.epochs <= 30 and first.epochs % 5 == 0
    from mllmrec.models.baselines import popularity
    from mllmrec.models.validation import validation_ndcg

    reached, baseline = (validation_ndcg(m, dataset.train, valid) for m in (first, popularity(dataset.train)))
    assert reached > baseline


def test_alpharec_propagates_projected_vectors_and_contrasts_with_the_batch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vectors = torch.randn(N, 8).numpy()
        network = AlphaRecNetwork(R, vectors, 4, AlphaRecConfig(temperature=0.3, negatives=2, gcn_layers=2))
    X = R.to_scipy().toarray().astype(np.float64)
    means = X @ vectors
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means = np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 0)
    (w, b), (out, c) = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (network.project[0], network.project[2])
    )
    hidden = np.concatenate([means, vectors]) @ w.T + b
    E = np.where(hidden > 0, hidden, 0.01 * hidden) @ out.T + c
    A = np.block([[np.zeros((U, U)), X], [X.T, np.zeros((N, N))]])
    degree = A.sum(axis=1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    A = scale[:, None] * A * scale
    Z = (E + A @ E + A @ A @ E) / 3
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    users, items = (tensor.detach().numpy() for tensor in network.vectors())
    S = Z[:U] @ Z[U:].T
    np.testing.assert_allclose(users @ items.T, S, rtol=1e-4, atol=1e-5)
    u, i, j = np.array([0, 3, 4]), np.array([1, 0, 2]), np.array([3, 2, 1])
    logits = np.exp(np.column_stack([S[u, i], S[u][:, j[:2]]]) / 0.3)
    expected = -np.log(logits[:, 0] / logits.sum(axis=1)).mean()
    loss = network.loss(*(torch.from_numpy(ids) for ids in (u, i, j)))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
