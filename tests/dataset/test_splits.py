"""Split rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, load, prepare, statistics
from mllmrec.dataset.splits import assign, hidden_items, resplit
from mllmrec.errors import InputError


def table(sizes: list[int]) -> pl.DataFrame:
    users = np.repeat(np.arange(len(sizes)), sizes)
    items = np.concatenate([np.arange(n) for n in sizes])
    return pl.DataFrame({"user": users, "item": items, "timestamp": items * 10, "split": [None] * len(users)})


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 10, 11, 14, 15, 19, 20, 57])
def test_random_holds_out_what_the_rule_says(n: int) -> None:
    parts = np.bincount(assign(table([4, n, 6]), "random", 1)[4 : 4 + n], minlength=3)
    held = 0 if n < 3 else 2 if n < 10 else n // 5
    assert parts.tolist() == [n - held, held // 2, held - held // 2]


def test_random_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    rows = table([30, 30])
    shuffled = pl.concat([rows.filter(user=u).sample(fraction=1, shuffle=True, seed=4) for u in (0, 1)])
    expected = rows.with_columns(part=pl.Series(assign(rows, "random", 9)))
    found = shuffled.with_columns(part=pl.Series(assign(shuffled, "random", 9))).sort("user", "item")
    assert found["part"].to_list() == expected["part"].to_list()
    assert assign(rows, "random", 10).tolist() != expected["part"].to_list()


def test_leave_one_out_takes_the_latest() -> None:
    assert assign(table([5, 2, 3]), "leave-one-out", 0).tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2]


def test_global_time_cuts_at_whole_moments() -> None:
    rows = pl.DataFrame({"user": [0] * 10, "item": range(10), "timestamp": [1, 2, 3, 4, 5, 6, 7, 8, 8, 9]})
    assert assign(rows, "global-time", 0).tolist() == [0] * 9 + [2]


def test_rules_of_time_refuse_data_without_time() -> None:
    rows = table([5]).with_columns(timestamp=pl.lit(None, pl.Int64))
    with pytest.raises(InputError, match="--split leave-one-out needs a time for every interaction, and 5 have none"):
        assign(rows, "leave-one-out", 0)


@pytest.mark.parametrize(
    ("n", "expected"), [(2, "00"), (3, "012"), (9, "000000012"), (10, "0000000012"), (15, "0" * 12 + "122")]
)
def test_user_time_holds_out_the_latest_as_many_as_random(n: int, expected: str) -> None:
    assert "".join(map(str, assign(table([n]), "user-time", 0))) == expected


def test_cold_items_hide_all_interactions_of_a_share_and_split_the_rest_at_random() -> None:
    rows = table([20] * 30)  # 20 items with 30 interactions each
    part = assign(rows, "cold-items", 5, 0.1)
    by_item = rows.with_columns(part=pl.Series(part)).group_by("item").agg(pl.col("part").unique().sort())
    hidden = {n: {row["item"] for row in by_item.iter_rows(named=True) if row["part"] == [n]} for n in (1, 2)}
    valid, test = hidden_items(rows, 5, 0.1)
    assert hidden == {1: set(valid.tolist()), 2: set(test.tolist())}
    assert len(valid) == len(test) == 2 and not set(valid) & set(test)  # a tenth of the items each
    warm = rows.filter(~pl.col("item").is_in([*valid, *test]))  # 16 a user: floor(16 / 5) held out, one of them valid
    np.testing.assert_array_equal(part[~rows["item"].is_in([*valid, *test]).to_numpy()], assign(warm, "random", 5))
    assert np.bincount(assign(warm, "random", 5)).tolist() == [30 * 13, 30, 30 * 2]


def test_hidden_items_depend_on_the_seed_and_leave_some_to_train_on() -> None:
    rows = table([20] * 3)
    draws = [np.concatenate(hidden_items(rows, seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert [len(part) for part in hidden_items(table([3]), 0, 0.001)] == [1, 1]  # at least one item each
    with pytest.raises(InputError, match="--cold-share 0.49 of 2 items hides 1 for validation"):
        hidden_items(table([2]), 0, 0.49)


def test_a_dataset_with_hidden_items_says_how_many(shop: Path, tmp_path: Path) -> None:
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=2, split="cold-items", seed=4, cold_share=0.2))
    assert made.manifest["split"] == {"rule": "cold-items", "seed": 4, "cold_share": 0.2}
    steps, rows = made.manifest["steps"], made.interactions
    valid, test = hidden_items(rows, 4, 0.2)
    assert steps["items hidden for the test"] == len(test) == round(0.2 * rows["item"].n_unique())
    assert steps["interactions of items hidden for the test"] == rows["item"].is_in(test.astype(np.int32)).sum()
    assert steps["interactions of items hidden for validation"] == rows["item"].is_in(valid.astype(np.int32)).sum()
    counted = statistics(load(tmp_path / "d"))
    cold = ~np.isin(rows["item"], made.train.indices)
    assert counted.cold_heldout == tuple((cold & (rows["split"] == n).to_numpy()).sum() for n in (1, 2))
    assert counted.cold_heldout[1] >= steps["interactions of items hidden for the test"] > 0
    assert counted.new_user_heldout == (0, 0) or counted.untrained_users > 0


def test_a_dataset_is_split_anew_as_prepare_would(dataset: Dataset, shop: Path, tmp_path: Path) -> None:
    again = resplit(dataset, "cold-items", 4, 0.2)
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=2, split="cold-items", seed=4, cold_share=0.2))
    assert again.interactions["split"].to_list() == made.interactions["split"].to_list()
    assert again.manifest["steps"] == made.manifest["steps"] and again.manifest["split"] == made.manifest["split"]
    assert again.split_digest != dataset.split_digest and again.items_digest == dataset.items_digest
    back = resplit(again, "random", 999)
    assert back.interactions.equals(dataset.interactions) and "hidden" not in str(back.manifest["steps"])
    with pytest.raises(InputError, match="there is no split 'cold'; there are random, user-time, leave-one-out"):
        resplit(dataset, "cold", 0)
