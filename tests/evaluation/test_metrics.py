"""Metrics against ir-measures where the definitions agree, and by hand where they do not."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, P, R, nDCG

from mllmrec.evaluation import metrics

RANKS = np.array([0, 3, 7, 1, 25, 60, 2])
INDPTR = np.array([0, 3, 5, 6, 6, 7])  # five users, the fourth without held-out items


def oracle(k: int) -> dict[str, dict[str, float]]:
    qrels, run = [], []
    for user in range(len(INDPTR) - 1):
        ranks = RANKS[INDPTR[user] : INDPTR[user + 1]]
        qrels += [ir_measures.Qrel(str(user), f"d{rank}", 1) for rank in ranks]
        run += [ir_measures.ScoredDoc(str(user), f"d{n}", -float(n)) for n in range(100)] if len(ranks) else []
    names = {"recall": R @ k, "precision": P @ k, "ndcg": nDCG @ k, "map": AP @ k}
    found = {m.query_id + str(m.measure): m.value for m in ir_measures.iter_calc(list(names.values()), qrels, run)}
    return {name: {u: found[u + str(measure)] for u in "0124"} for name, measure in names.items()}


@pytest.mark.parametrize("k", [5, 10, 50])
def test_metrics_equal_ir_measures_where_definitions_agree(k: int) -> None:
    # No user has more than k held-out items here, so the ideal lists of both are the same.
    ours = metrics.per_user(RANKS, INDPTR, (k,))
    for name, expected in oracle(k).items():
        values = ours[f"{name}@{k}"]
        assert [values[int(u)] for u in "0124"] == pytest.approx([expected[u] for u in "0124"])
        assert math.isnan(values[3])


def test_recall_divides_by_all_held_out_and_map_by_those_that_fit() -> None:
    # Three held-out items at ranks 0, 1, 5; k = 2 shows two of them.
    values = metrics.per_user(np.array([5, 0, 1]), np.array([0, 3]), (2,))
    assert values["recall@2"][0] == pytest.approx(2 / 3)
    assert values["precision@2"][0] == 1
    assert values["ndcg@2"][0] == pytest.approx(1)  # the ideal list holds min(k, m) hits
    assert values["map@2"][0] == pytest.approx(1)


def test_means_leave_out_users_without_held_out_items() -> None:
    assert metrics.mean({"recall@1": np.array([1.0, np.nan, 0.0])}) == {"recall@1": 0.5}
    assert math.isnan(metrics.mean({"recall@1": np.array([np.nan])})["recall@1"])
    assert (metrics.short(math.nan), metrics.decimals(math.nan)) == ("-", "-")


def test_nobody_to_evaluate_gives_no_warning() -> None:
    values = metrics.per_user(np.array([], dtype=np.int32), np.zeros(3, dtype=np.int64), (5,))
    assert np.isnan(values["ndcg@5"]).all()


def test_an_interval_of_a_difference_is_written_with_signs_and_without_leading_zeros() -> None:
    assert metrics.Interval(0.01234, -0.00121, 0.0258).signed == "+.0123 [-.0012, +.0258]"
    assert metrics.Interval(math.nan, math.nan, math.nan).signed == "- [-, -]"
