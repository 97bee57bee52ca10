"""Two tables for models of item-item weights: exact at full rank, and near to a stated error below it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mllmrec.errors import InputError
from mllmrec.models import EASE, IALS, Ensemble, ItemKNN, Recommender
from mllmrec.models.fitting import as_interactions
from mllmrec.models.inner_products import inner_products, measure_error
from tests.models.test_new_users import ITEMS, KINDS, USERS, shop

COLD = 5


def fitted(kind: str) -> tuple[Recommender, sp.csr_array]:
    """A model of a catalogue whose last items nobody has."""
    train, valid, vectors = shop()
    warm = sp.diags_array((np.arange(ITEMS) < ITEMS - COLD).astype(np.float32))
    train, valid = sp.csr_array(train @ warm), sp.csr_array(valid @ warm)
    train.eliminate_zeros()
    valid.eliminate_zeros()
    model = type(KINDS[kind])(KINDS[kind].config)
    return model.fit(train, item_features=vectors, valid=valid, seed=1), train


@pytest.mark.parametrize("kind", ["ensemble", "ridge", "ease", "item-knn"])
def test_products_are_the_scores_at_full_rank(kind: str) -> None:
    model, train = fitted(kind)
    tables = inner_products(model, ITEMS)  # all but one of the singular values
    scores, users = model.scores(np.arange(USERS)), np.arange(USERS)
    products = tables.scores(users)
    assert np.abs(products - scores).max() < 0.05 * scores.std()
    error = measure_error(model, tables, as_interactions(train), ITEMS)
    assert error.users == USERS and error.overlap > 0.98 and error.candidates > 0.99 and error.score_rmse < 0.02
    if kind == "ensemble":  # items that nobody has get scores from their vectors
        assert tables.items[-COLD:].any(axis=1).all()
        assert np.abs(products[:, -COLD:] - scores[:, -COLD:]).max() < 0.05 * scores.std()


def test_a_lower_rank_is_further_off_and_says_so() -> None:
    model, train = fitted("ensemble")
    owned = as_interactions(train)
    errors = [measure_error(model, inner_products(model, rank), owned, rank) for rank in (2, 16, 64)]
    assert errors[0].score_rmse > errors[1].score_rmse > errors[2].score_rmse
    assert errors[0].overlap < errors[2].overlap
    lists, near = (
        model.recommend(np.arange(USERS), 20)[0],
        inner_products(model, 16).top(np.arange(USERS), 20, owned)[0],
    )
    shared = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(lists, near, strict=True)])
    assert errors[1].overlap == pytest.approx(shared)


def test_the_same_model_gives_the_same_bits() -> None:
    model, _ = fitted("ease")
    for left, right in zip(
        (inner_products(model, 8).users, inner_products(model, 8).items),
        (inner_products(model, 8).users, inner_products(model, 8).items),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)


def test_vectors_of_factors_are_their_own_and_sums_without_weights_have_none() -> None:
    train, valid, vectors = shop()
    factors = IALS(factors=4).fit(train)
    assert inner_products(factors, 3).items is factors.items
    with pytest.raises(InputError, match="no weights to take vectors from; serve what mllmrec recommend writes"):
        inner_products(ItemKNN(n_neighbors=0, weighting="cosine").fit(train), 3)
    with pytest.raises(InputError, match="not fitted"):
        inner_products(Ensemble(), 3)
    assert EASE().fit(train, item_features=vectors, valid=valid).weights is not None
