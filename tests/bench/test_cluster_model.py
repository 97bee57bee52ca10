"""The simulation of a run on more nodes, on numbers that a hand can check."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cluster_model import Cluster, gap, moved_bytes, new_tables, predict, sent_rows

EIGHT = [(2.5, 0, 0)] * 8


def test_blocks_shrink_with_the_workers() -> None:
    assert Cluster(1).run(EIGHT, 0) == 20
    assert Cluster(4).run(EIGHT, 0) == 5 and Cluster(2, workers=2).run(EIGHT, 0) == 5
    assert Cluster(3).run(EIGHT, 0) == 7.5  # three rounds
    assert Cluster(64).run(EIGHT, 0) == 2.5
    assert Cluster(2).run([(4, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)], 0) == 4  # the first one is the longest way


def test_tables_double_from_node_to_node_and_the_first_node_need_not_wait() -> None:
    wire = Cluster(4, bandwidth=100)
    assert wire.move_tables(300) == 6 and Cluster(1, bandwidth=100).move_tables(300) == 0
    assert wire.run([(1, 0, 0)], 300) == 1  # on the starter's own node
    assert wire.run([(1, 0, 0)] * 8, 300) == 7  # two in flight a worker: seven of the starter's node, one elsewhere


def test_rows_results_and_handling_pass_the_starter_one_after_the_other() -> None:
    assert Cluster(2, bandwidth=10).run([(1, 20, 30)], 0) == 2 + 1 + 3
    assert Cluster(1, bandwidth=10).run([(1, 20, 30)], 0) == 1  # nothing leaves the node
    assert Cluster(1, handling=0.5).run([(0, 0, 0)] * 10, 0) == pytest.approx(5)
    assert Cluster(5, gap=0.5).run([(1, 0, 0)] * 10, 0) == pytest.approx(3)


def work(stop: float, tables: dict[str, int], stage: str = "graph") -> dict[str, Any]:
    return {"stage": stage, "start": 0.0, "stop": stop, "tables": tables, "cut": {}, "blocks": EIGHT}


def test_a_table_moves_again_once_four_works_did_not_read_it() -> None:
    names = ("a", "b", "a", "b", "b", "b", "b", "b", "a")
    works = [{"cut": {"R": 30, "new": 10}}, {"cut": {}}, {"cut": {"R": 30}}, {"cut": {"R": 30, "other": 10}}]
    assert sent_rows(works) == [1, 0, 1, 0.25]  # by value, by reference, and then it is there
    assert new_tables([work(20, {name: 7}) for name in names]) == [7, 7, 0, 0, 0, 0, 0, 0, 7]


def test_bytes_between_nodes_are_tables_for_each_and_rows_and_results_of_those_elsewhere() -> None:
    few = {"stage": "a", "tables": {"V": 1000}, "cut": {}, "blocks": [(1, 10, 100)] * 2}
    many = {"stage": "b", "tables": {"V": 1000}, "cut": {"R": 80}, "blocks": [(1, 10, 100)] * 8}
    assert moved_bytes([few, many], 4) == {"a": 1000 + 100, "b": 2000 + 6 * 110}  # two nodes had V already
    assert moved_bytes([many, many, many], 2) == {"b": 1000 + 4 * (110 + 110 + 100)}
    assert moved_bytes([few, many], 1) == {"a": 0, "b": 0}


def test_what_is_not_in_blocks_stays_and_stages_that_were_read_again_do_not_count() -> None:
    stages = {
        "encode": {"seconds": 9.0, "reused": True},
        "graph": {"seconds": 30.0, "reused": False},
        "recommend": {"seconds": 4.0, "reused": False},
    }
    trace = {"stages": stages, "works": [work(20.8, {}), work(20.8, {}, "recommend")]}
    stages["recommend"]["seconds"] = 21.0
    assert gap(trace) == pytest.approx(0.1)
    assert predict(trace, Cluster(1, gap=0.1)) == {"graph": pytest.approx(30), "recommend": pytest.approx(21)}
    shorter = predict(trace, Cluster(8))
    assert shorter == {"graph": pytest.approx(30 - 20.8 + 2.5), "recommend": pytest.approx(21 - 20.8 + 2.5)}
