"""Items that a fit did not know: placed by their vectors, shown to those who like their like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.errors import InputError
from mllmrec.models import EASE, Ensemble, Recommender
from mllmrec.models.new_items import extend_weights, place
from tests.models.test_new_users import ITEMS, KINDS, shop

HIDDEN = 12


def fit_without_the_last(kind: str) -> tuple[Recommender, np.ndarray, np.ndarray]:
    """A model that knows all items but the last, their vectors, and who has them."""
    train, valid, vectors = shop()
    model = type(KINDS[kind])(KINDS[kind].config)
    known = slice(ITEMS - HIDDEN)
    model.fit(train[:, known], item_features=vectors[known], valid=valid[:, known], seed=1)
    return model, vectors[-HIDDEN:], (train + valid).toarray()[:, -HIDDEN:] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_owners_of_hidden_items_score_them_higher_than_others_do(kind: str) -> None:
    model, vectors, owned = fit_without_the_last(kind)
    wider = model.add_items(vectors)
    scores = wider.scores(np.arange(len(owned)))[:, -HIDDEN:]
    areas = []
    for item in range(HIDDEN):  # the probability that an owner of the item scores it above one who is none
        own, others = scores[owned[:, item], item], scores[~owned[:, item], item]
        areas.append(np.mean(own[:, None] > others) + np.mean(own[:, None] == others) / 2)
    assert np.mean(areas) > 0.7
    assert model.scores([0]).shape[1] == ITEMS - HIDDEN  # the model itself is as it was


@pytest.mark.parametrize("kind", KINDS)
def test_known_items_keep_their_scores_and_new_ones_are_listed(kind: str) -> None:
    model, vectors, _ = fit_without_the_last(kind)
    wider, users = model.add_items(vectors), np.arange(30)
    before, after = model.scores(users), wider.scores(users)[:, :-HIDDEN]
    if kind == "ensemble":  # the spread over the catalogue has new items in it
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    else:
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert (wider.recommend(users, 10)[0] >= ITEMS - HIDDEN).any()
    similar, _ = wider.similar_items(np.arange(ITEMS - HIDDEN, ITEMS), 3)
    assert (similar >= 0).all()
    train, _, _ = shop()
    assert wider.recommend(train[:4], 5)[0].shape == (4, 5)  # new users of new items


def test_shares_are_cosines_of_warm_items_and_one_in_sum() -> None:
    known = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]], np.float32)
    warm = CSR.from_pairs(np.array([0, 0, 0]), np.array([0, 1, 2]), (1, 4))  # nobody has the last
    new = np.array([[0.8, 0.6, 0], [0, 0, -1], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        place(known, new, warm).toarray(), [[0.8 / 1.4, 0.6 / 1.4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], rtol=1e-6
    )
    assert place(known, new, None).toarray()[0, 3] > 0  # where no interactions are known, every item counts


@pytest.mark.parametrize("dense", [False, True])
def test_weights_are_extended_by_shares_on_both_sides(dense: bool) -> None:
    W = np.array([[0, 1], [2, 0]], np.float32)
    shares = sp.csr_array(np.array([[0.25, 0.75]], np.float32))
    wider = extend_weights(W if dense else sp.csr_array(W), shares)
    expected = [[0, 1, 0.75], [2, 0, 0.5], [1.5, 0.25, 0.25 * 0.75 + 0.75 * 0.5]]
    np.testing.assert_allclose(wider if dense else wider.to_scipy().toarray(), expected)


def test_a_saved_model_places_new_items_the_same(tmp_path: Path) -> None:
    model, vectors, _ = fit_without_the_last("ensemble")
    model.save(tmp_path / "m")
    again = Ensemble.load(tmp_path / "m").add_items(vectors)
    users = np.arange(9)
    np.testing.assert_array_equal(again.scores(users), model.add_items(vectors).scores(users))


def test_what_is_refused() -> None:
    train, _, vectors = shop()
    with pytest.raises(InputError, match="has no item vectors to place new items by"):
        EASE().fit(train).add_items(vectors)
    model = EASE().fit(train, item_features=vectors)
    with pytest.raises(InputError, match=r"must have shape \(N, 12\), as the items of the fit; got \(2, 3\)"):
        model.add_items(np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="NaN or infinity"):
        model.add_items(np.full((1, 12), np.nan, np.float32))
    assert model.add_items(np.empty((0, 12), np.float32)).scores([0]).shape == (1, ITEMS)
