"""What every kind of model promises: a matrix of scipy in, lists out, the same after it was saved."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from mllmrec import models
from mllmrec.config import TrainConfig
from mllmrec.dataset import Histories
from mllmrec.errors import ConfigError, InputError, TrainingError
from mllmrec.models import EASE, FitContext, Recommender, registry

USERS, ITEMS = 40, 60  # more than 20 items to rank: early stopping reads Recall@20
QUICK = FitContext(TrainConfig(epochs=6, dim=8, batch_size=64, learning_rate=0.05))


def checkerboard() -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Even users have even items, odd users odd ones; a quarter is held out."""
    users, items = np.nonzero(np.add.outer(np.arange(USERS), np.arange(ITEMS)) % 2 == 0)
    held = (users + items // 2) % 4 == 0
    matrices = (
        sp.csr_matrix((np.ones(part.sum()), (users[part], items[part])), (USERS, ITEMS)) for part in (~held, held)
    )
    train, valid = matrices
    return train, valid


def features() -> np.ndarray:
    """Unit vectors in which even and odd items differ."""
    raw = np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32)
    raw[:, 0] += np.where(np.arange(ITEMS) % 2, -3, 3)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def context_of(kind: str, train: sp.csr_matrix) -> FitContext:
    """Return a quick context; with an order, by item id, where the kind needs one."""
    if kind not in ("transitions", "sasrec"):
        return QUICK
    times = np.concatenate([np.arange(n) for n in np.diff(train.indptr)])
    return replace(QUICK, histories=Histories(train.indptr.astype(np.int64), train.indices, times, ITEMS, "train"))


@pytest.mark.parametrize("kind", registry.kinds())
def test_each_kind_works_on_a_matrix_of_scipy_without_a_dataset(kind: str, tmp_path: Path) -> None:
    if kind == "sansa":
        pytest.importorskip("sansa")
    train, valid = checkerboard()
    model = registry.find(kind)(context=context_of(kind, train)).fit(
        train, item_features=features(), valid=valid, seed=3
    )
    users = np.array([0, 7, 39])
    ids, scores = model.recommend(users, 2)
    assert ids.shape == scores.shape == (3, 2) and ids.dtype == np.int32 and scores.dtype == np.float32
    for user, row in zip(users, ids, strict=True):
        assert set(row) <= set(valid[user].indices)  # of the user's own color, and new to them
    everything, _ = model.recommend([4], 3, exclude=sp.csr_matrix((1, ITEMS)))
    assert (everything % 2 == 0).all()
    assert model.scores([4]).shape == (1, ITEMS)
    similar, cosines = model.similar_items([2, 5], 2)
    if kind != "ensemble":  # its ridge weighs all other items at once, unlike ones too
        assert (similar[:, 0] >= 0).all() and ((similar % 2 == [[0], [1]]) | (similar == -1)).all()
    assert not (similar == [[2], [5]]).any()
    assert (cosines[:, 0] >= cosines[:, 1]).all()

    model.save(tmp_path / "model")
    again = registry.find(kind).load(tmp_path / "model")
    assert again.config == model.config and again.summary == model.summary
    for before, after in zip((ids, scores), again.recommend(users, 2), strict=True):
        np.testing.assert_array_equal(before, after)


def test_all_similar_items_are_those_of_each_item() -> None:
    train, _ = checkerboard()
    model = models.IALS(factors=4).fit(train)
    every, _ = model.similar_items(np.arange(ITEMS), 3)
    np.testing.assert_array_equal(model.similar_items([3, 17, 4], 3)[0], every[[3, 17, 4]])


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_matrix, sp.coo_array, sp.lil_matrix])
def test_any_sparse_matrix_will_do_and_its_zeros_are_no_interactions(form: type) -> None:
    train, _ = checkerboard()
    with_zero = train.copy()
    with_zero.data[0] = 0
    without = train.tolil()
    without[0, train.indices[0]] = 0
    expected = EASE().fit(without.tocsr()).scores(range(USERS))
    np.testing.assert_array_equal(EASE().fit(form(with_zero)).scores(range(USERS)), expected)
    np.testing.assert_array_equal(EASE().fit(form(without.tocsr() * 5)).scores(range(USERS)), expected)


def test_what_a_model_refuses() -> None:
    train, valid = checkerboard()
    with pytest.raises(ConfigError, match=r"'model.regularisation' is now 'model.regularization'"):
        EASE(regularisation=3)
    with pytest.raises(ConfigError, match=r"'model.regularization': Input should be greater than 0"):
        EASE(regularization=-1)
    with pytest.raises(InputError, match=r"must be a sparse matrix of scipy or a CSR; got ndarray"):
        EASE().fit(train.toarray())
    with pytest.raises(InputError, match=r"item_features must have shape \(60, d\); got \(3, 6\)"):
        EASE().fit(train, item_features=features()[:3])
    for wrong in (np.nan, np.inf, -np.inf):
        vectors = features().copy()
        vectors[7, 2] = wrong
        with pytest.raises(InputError, match="item_features has a number that is NaN or infinite"):
            EASE().fit(train, item_features=vectors)
    with pytest.raises(TrainingError, match="no training interactions"):
        EASE().fit(sp.csr_matrix(train.shape))
    with pytest.raises(InputError, match="not fitted"):
        EASE().scores([0])
    with pytest.raises(InputError, match="not fitted"):
        EASE().save("never")
    with pytest.raises(InputError, match=r"VBPR needs item vectors: fit\(user_items, item_features=...\)"):
        models.VBPR(context=QUICK).fit(train, valid=valid)
    with pytest.raises(TrainingError, match="validation split is empty"):
        models.BPR(context=QUICK).fit(train)


def test_every_class_is_found_by_its_name_and_documents_its_settings() -> None:
    for name, module in registry.class_paths().items():
        found = getattr(models, name)
        assert issubclass(found, Recommender) and found.__module__ == module and name in dir(models)
        text = importlib.import_module(module).__doc__
        assert (text and "score" in text) or "y_ui" in text
        assert found.Config.model_fields["kind"].default in registry.kinds()
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = models.Nothing


@pytest.mark.parametrize("kind", registry.kinds())
def test_the_first_candidates_are_settings_of_the_kind(kind: str) -> None:
    from mllmrec.config import load_config

    for candidate in registry.find(kind).candidates:
        load_config(None, [f"model.kind={kind}", *candidate])
