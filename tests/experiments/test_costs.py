"""Predicted costs: the sizes behind them by hand, and how they grow; docs/performance.md has them beside real runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.config import load_config, override
from mllmrec.dataset import Dataset
from mllmrec.experiments.costs import Sizes, machine_speed, measure_sizes, predict_costs
from mllmrec.reason.cache import open_cache
from mllmrec.reason.request_plan import _has_pictures, plan_requests
from mllmrec.runs.record import STAGES

GIVEN = load_config(None, ["encode.features=item_feat", "profile.kind=mean"])
LARGE = Sizes(200_000, 100_000, 1_700_000, 5e7, 5e9, (190_000, 190_000), 384, True, 2)


def test_sizes_are_counted_in_the_training_interactions(dataset: Dataset) -> None:
    sizes = measure_sizes(dataset, load_config())
    R = dataset.train.to_scipy().toarray()
    assert (sizes.users, sizes.items, sizes.interactions) == (*R.shape, int(R.sum()))
    assert sizes.shared == (R.T @ R).sum() and sizes.width == 384 and not sizes.given
    added = (R @ ((R.T @ R) > 0).sum(axis=1)).sum()  # all neighbors of each item of each user
    assert sizes.additions == pytest.approx(added, rel=0.3)
    for users, split in zip(sizes.heldout, ("valid", "test"), strict=True):
        held = dataset.matrix(split).to_scipy().toarray()
        assert users == int(((held.sum(axis=1) > 0) & (R.sum(axis=1) > 0)).sum())


def test_costs_grow_with_users_and_with_pairs_of_items() -> None:
    def cost(stage: str, sizes: Sizes) -> float:
        return next(one.seconds or 0.0 for one in predict_costs(sizes, GIVEN) if one.stage == stage)

    assert [one.stage for one in predict_costs(LARGE, GIVEN)] == list(STAGES)
    for stage in ("evaluate", "recommend"):
        doubled = replace(LARGE, users=400_000, heldout=(380_000, 380_000), shared=1e8, additions=1e10)
        assert cost(stage, doubled) == pytest.approx(2 * cost(stage, LARGE), rel=0.05)
    assert 3 < cost("graph", replace(LARGE, items=200_000)) / cost("graph", LARGE) < 4
    assert cost("train", replace(LARGE, cores=4)) < 0.75 * cost("train", LARGE)
    slow = predict_costs(LARGE, GIVEN, speed=0.5)
    for once, twice in zip(predict_costs(LARGE, GIVEN), slow, strict=True):
        assert once.seconds is not None and twice.seconds == pytest.approx(2 * once.seconds)
        assert once.mib is not None and 300 < once.mib < 8_000


@pytest.mark.parametrize(
    ("users", "items", "measured"), [(22_000, 12_000, 1.9), (200_000, 100_000, 42), (1_000_000, 200_000, 164)]
)
def test_lists_take_what_was_measured_on_two_cores_within_a_factor_of_two(
    users: int, items: int, measured: float
) -> None:
    sizes = replace(LARGE, users=users, items=items)
    predicted = next(one.seconds for one in predict_costs(sizes, GIVEN) if one.stage == "recommend")
    assert predicted is not None and measured / 2 < predicted < 2 * measured


def test_other_models_have_no_prediction_and_the_stages_before_have() -> None:
    costs = predict_costs(LARGE, load_config(None, ["model.kind=bpr"]))
    assert [one.stage for one in costs if one.seconds is None] == ["train", "evaluate", "recommend"]
    assert all((one.seconds is None) == (one.mib is None) for one in costs)


def test_the_speed_of_a_machine_is_a_number_near_one() -> None:
    assert 0.01 < machine_speed() < 100
    assert np.isfinite(machine_speed())


def test_a_plan_of_means_counts_users_with_items_and_items_with_pictures(dataset: Dataset, tmp_path: Path) -> None:
    pictures = [["images/" + "0" * 64] if n in (3, 5) else None for n in range(dataset.n_items)]
    images = pl.Series("images", pictures, dtype=pl.List(pl.String))
    few = replace(
        dataset, items=dataset.items.with_columns(images), interactions=dataset.interactions.filter(pl.col("user") > 3)
    )
    text_only = override(GIVEN, ["describe.images=false"])
    with open_cache(tmp_path / "cache.sqlite") as cache:
        described, profiled = plan_requests(few, text_only, cache, ["describe", "profile"])
    assert (described.total, described.calls) == (0, 0)
    assert (profiled.total, profiled.calls) == (len(np.unique(few.train.rows())), 0)
    assert _has_pictures(few).nonzero()[0].tolist() == [3, 5]
