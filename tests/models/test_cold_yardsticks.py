"""Models that score cold items: right values by their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mllmrec.config import TrainConfig
from mllmrec.errors import InputError
from mllmrec.features.encode import normalize_rows
from mllmrec.models import EASE, CLCRec, Content, EASENeighbors, FitContext
from mllmrec.models.content import half_whiten, project_vectors

USERS, ITEMS, COLD = 50, 40, (3, 17, 38)


@pytest.fixture
def data() -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of items and of users, three cold items, and vectors that tell the kinds apart."""
    generator = np.random.default_rng(0)
    owned = (generator.random((USERS, ITEMS)) < 0.4) & (np.add.outer(np.arange(USERS), np.arange(ITEMS)) % 2 == 0)
    owned[:, list(COLD)] = False
    raw = generator.standard_normal((ITEMS, 6)).astype(np.float32)
    raw[:, 0] += np.where(np.arange(ITEMS) % 2, -2, 2)
    return sp.csr_matrix(owned.astype(np.float32)), normalize_rows(raw)


def test_half_whitening_takes_the_square_root_of_the_variances_root(data: tuple[sp.csr_matrix, np.ndarray]) -> None:
    V = data[1].copy()
    V[5] = 0  # no text
    Z = half_whiten(V)
    assert not Z[5].any()
    filled = np.arange(ITEMS) != 5
    np.testing.assert_allclose(np.linalg.norm(Z[filled], axis=1), 1, atol=1e-5)
    X = V[filled].astype(np.float64) - V[filled].mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(np.cov(X.T, bias=True))
    by_hand = X @ axes / values**0.25
    np.testing.assert_allclose(by_hand.var(axis=0), values**0.5, rtol=1e-4)  # what the name says
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(Z[filled] @ Z[filled].T, by_hand @ by_hand.T, atol=1e-4)  # axes have no sign
    assert half_whiten(np.ones((4, 3), np.float32)).shape == (4, 1)


@pytest.mark.parametrize("space", ["plain", "half-whitened", "projected"])
def test_content_is_the_cosine_to_the_mean_of_the_users_items(
    space: str, data: tuple[sp.csr_matrix, np.ndarray]
) -> None:
    R, V = data
    Z = {"plain": lambda: V, "half-whitened": lambda: half_whiten(V)}.get(space)
    model = Content(space=space).fit(R, item_features=V)
    vectors = Z() if Z else project_vectors(V, model.user_items)  # type: ignore[arg-type]
    means = normalize_rows(np.asarray(R @ vectors, np.float32))
    np.testing.assert_allclose(model.scores(np.arange(USERS)), means @ vectors.T, atol=1e-5)
    with pytest.raises(InputError, match="content needs item vectors"):
        Content(space=space).fit(R)


def test_a_cold_column_is_the_mean_of_its_nearest_warm_columns(data: tuple[sp.csr_matrix, np.ndarray]) -> None:
    R, V = data
    B = EASE().fit(R, item_features=V).weights
    model = EASENeighbors(cold_scale=0.8).fit(R, item_features=V)
    assert isinstance(B, np.ndarray) and isinstance(model.weights, np.ndarray)
    warm = np.setdiff1d(np.arange(ITEMS), COLD)
    np.testing.assert_array_equal(model.weights[:, warm], B[:, warm])
    for cold in COLD:
        cosines = V[warm] @ V[cold]
        nearest = np.argsort(-cosines, kind="stable")[:20]
        share = np.maximum(cosines[nearest], 0)
        np.testing.assert_allclose(
            model.weights[:, cold], 0.8 * B[:, warm[nearest]] @ (share / share.sum()), rtol=1e-4, atol=1e-6
        )
    without = EASENeighbors().fit(R)
    assert not without.weights[:, list(COLD)].any()  # type: ignore[index]


def test_clcrec_shows_cold_items_to_the_users_of_their_kind(data: tuple[sp.csr_matrix, np.ndarray]) -> None:
    R, V = data
    quick = FitContext(TrainConfig(epochs=20, dim=8, batch_size=128, learning_rate=0.03, patience=20))
    valid = sp.csr_matrix(np.roll(R.toarray(), 2, axis=1) * (R.toarray() == 0))
    model = CLCRec(context=quick).fit(R, item_features=V, valid=valid, seed=1)
    scores = model.scores(np.arange(USERS))[:, list(COLD)]
    same_kind = np.add.outer(np.arange(USERS), np.array(COLD)) % 2 == 0
    assert scores[same_kind].mean() > scores[~same_kind].mean() + 0.5 * scores.std()
    again = CLCRec(context=quick).fit(R, item_features=V, valid=valid, seed=1)
    np.testing.assert_array_equal(again.scores([0]), model.scores([0]))
    assert (
        CLCRec(context=quick).fit(R, item_features=V, valid=valid, seed=2).scores([0])[0, 0] != model.scores([0])[0, 0]
    )
