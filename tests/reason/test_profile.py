"""Profiles are of one user, from training items alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mllmrec.config import DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.engine import HistoryItem, Item
from mllmrec.reason.engines.extractive import ExtractiveProfiler
from mllmrec.reason.profile import Profiles, profile_users


@pytest.fixture
def described(dataset: Dataset, tmp_path: Path) -> Descriptions:
    with open_cache(tmp_path / "c.sqlite") as cache:
        return describe_items(dataset, DescribeConfig(), cache)


def profiles(
    dataset: Dataset, described: Descriptions, tmp_path: Path, config: ProfileConfig | None = None
) -> Profiles:
    config = config or ProfileConfig()
    with open_cache(tmp_path / "c.sqlite") as cache:
        return profile_users(dataset, dataset.histories(config.history), described, config, cache)


def test_profiles_are_specific_and_repeatable(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    made = profiles(dataset, described, tmp_path)
    assert len(set(made.texts)) > 0.95 * dataset.n_users
    assert made.texts == profiles(dataset, described, tmp_path).texts
    assert all(text.startswith("Chooses ") for text in made.texts)


def test_words_of_held_out_items_are_in_no_profile(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    """A marker stands in the text of every item that some user has in test or validation only."""
    for user in range(0, dataset.n_users, 8):
        held = dataset.interactions.filter((pl.col("user") == user) & (pl.col("split") > 0))["item"].to_list()
        title = pl.when(pl.int_range(pl.len()).is_in(held)).then(pl.lit("Zyxmarker Zyxmarker")).otherwise("title")
        marked = replace(dataset, items=dataset.items.with_columns(title=title, description=title))
        assert "yxmarker" not in profiles(marked, described, tmp_path).texts[user].lower()
        leaky = profiles(marked, described, tmp_path, ProfileConfig(history="all"))
        assert "yxmarker" in leaky.texts[user].lower()


def test_held_out_interactions_change_no_profile(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    fewer = replace(dataset, interactions=dataset.interactions.filter(pl.col("split") == 0))
    assert profiles(fewer, described, tmp_path).texts == profiles(dataset, described, tmp_path).texts


def test_users_without_history_have_no_profile(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    nobody = replace(dataset, interactions=dataset.interactions.filter(pl.col("user") != 3))
    made = profiles(nobody, described, tmp_path)
    assert made.table.row(3, named=True)["status"] == "empty" and made.texts[3] == ""


def test_profiles_of_another_split_are_refused(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    leaky = profiles(dataset, described, tmp_path, ProfileConfig(history="all"))
    with pytest.raises(MismatchError, match="made from other histories \\(scope 'all'"):
        leaky.check(dataset.histories())
    leaky.save(lambda name: tmp_path / name)
    assert Profiles.load(lambda name: tmp_path / name).scope == "all"


def test_a_turn_of_taste_is_told(dataset: Dataset, described: Descriptions, tmp_path: Path) -> None:
    assert any("Lately turns to" in text for text in profiles(dataset, described, tmp_path).texts)


def test_only_brands_that_were_chosen_again_are_come_back_to() -> None:
    shop = [Item(f"thing {n}.", brand, ("things",), "", None, ()) for n, brand in enumerate("AABCDEFGHIJ")]
    write = ExtractiveProfiler(shop, [""] * len(shop), terms=3).profile
    history = [HistoryItem(n, "", None) for n in range(3)]
    (answer,) = write([history])
    assert "Comes back to A. Has tried B." in answer.text and answer.text.endswith("thing 1; thing 0.")
