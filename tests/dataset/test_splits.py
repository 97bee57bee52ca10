"""Split rules."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mllmrec.dataset.splits import assign
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
