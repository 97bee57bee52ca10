"""Benches over given vectors: cells of a table, the choice on validation, users drawn with their split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import profile_sources
from bench.given_vectors import GivenItems, best_of, gain, mean_of, table
from bench.user_sample import draw_users
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError


def values(*cells: tuple[float, float]) -> np.ndarray:
    """The NDCG of each user on validation and on test; recall is the double."""
    valid, test = np.array(cells, float).T
    return np.array([[2 * valid, valid], [2 * test, test]])


def test_means_gains_and_the_choice_leave_out_users_without_held_out_items() -> None:
    base, other = values((0.2, 0.1), (0.4, np.nan), (0.0, 0.3)), values((0.1, 0.2), (0.4, np.nan), (0.3, 0.4))
    assert mean_of(base, "valid", "ndcg@20") == pytest.approx(0.2) and mean_of(base, "test", "recall@20") == 0.4
    assert gain(other, base, "ndcg@20") == "+.1000 [+.1000, +.1000]"
    assert best_of({"base": base, "other": other}) == "other"
    assert table(("a", "b"), [("c", "d")]) == "| a | b |\n|---|---|\n| c | d |"


def test_a_judged_model_is_kept_and_counts_each_user(dataset: Dataset, tmp_path: Path) -> None:
    items = np.eye(dataset.n_items, dtype=np.float32)
    given = GivenItems(dataset, items, tmp_path)
    users = np.zeros((dataset.n_users, 4), np.float32)
    first = given.judge("one", lambda: users, "content")
    judged = np.unique(dataset.interactions.filter(pl.col("split") == 2)["user"])
    assert np.flatnonzero(np.isfinite(first[1, 0])).tolist() == judged.tolist()
    np.save(tmp_path / "one.npy", first + 1)
    np.testing.assert_array_equal(given.judge("one", lambda: users, "content"), first + 1)


def test_drawn_users_keep_their_split(dataset: Dataset, tmp_path: Path) -> None:
    drawn = draw_users(dataset, tmp_path / "drawn", 7, 3, 1)
    assert (
        drawn.name == f"{dataset.name}-7-users"
        and drawn.n_users == 7
        and drawn.n_items == drawn.interactions["item"].n_unique()
    )

    def rows(data: Dataset) -> pl.DataFrame:
        named = {
            "user": data.users.gather(data.interactions["user"]),
            "item": data.item_ids.gather(data.interactions["item"]),
        }
        table = pl.DataFrame({**named, "split": data.interactions["split"]})
        return table.filter(pl.col("user").is_in(drawn.users.to_list())).sort("user", "item")

    assert rows(drawn).equals(rows(dataset)) and rows(drawn)["user"].value_counts()["count"].min() >= 3
    with pytest.raises(InputError, match="no user of .* has 1000 interactions; lower --least"):
        draw_users(dataset, tmp_path / "none", 7, 1000, 1)


def test_the_row_of_texts_that_saw_held_out_items_says_leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = profile_sources.Maker.__new__(profile_sources.Maker)
    maker._generated, maker.means = [], np.zeros((2, 3), np.float32)
    monkeypatch.setattr(maker, "_best_states", lambda: ("states", lambda: maker.means, "train"), raising=False)
    sources = list(maker.sources())
    assert [name for name, _, scope in sources if scope == "all"] == [profile_sources.LEAKY]
    leaky = [name for name, make, _ in sources if "profile.history=all" in getattr(make, "args", ())]
    assert leaky == [profile_sources.LEAKY] and "LEAKY" in profile_sources.LEAKY
