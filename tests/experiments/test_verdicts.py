"""What is said of a study follows from its numbers: planted ones, and the sentence they must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.errors import InputError
from mllmrec.experiments import Difference, GridPoint, Result, find_study
from mllmrec.experiments.judge import SHOWN
from mllmrec.experiments.study import draw_study
from mllmrec.experiments.table import Connectivity, Row
from mllmrec.experiments.trial import Trial

USERS = 400


def row(
    label: str,
    *scores: float,
    at: tuple[float, ...] = (),
    largest: float | None = None,
    noise: float = 0,
    seeds: int = 2,
) -> Row:
    """A row whose seeds have these means; users differ by what all rows share, and by `noise` of their own."""
    shared = np.random.default_rng(0).random(USERS) / 10
    own = np.random.default_rng(len(label) + 7).normal(0, noise, USERS) if noise else np.zeros(USERS)
    values = [
        score + (shared - shared.mean()) + (own - own.mean())
        for score in (scores if len(scores) > 1 else scores * seeds)
    ]
    trials = [Trial(dict.fromkeys(SHOWN, value), dict.fromkeys(SHOWN, np.empty(0)), 1.0, None, "") for value in values]
    settings = ("profile.history=all",) if "LEAKY" in label else ()
    graph = None if largest is None else Connectivity(1000, 5000, 40, largest, 12)
    return Row.of(GridPoint(label, settings, at, leaky="LEAKY" in label), trials, "valid", graph)


def result(name: str, *rows: Row) -> Result:
    return find_study(name).conclude("shop", rows)


def test_a_difference_has_the_standard_error_of_users_and_of_seeds() -> None:
    generator = np.random.default_rng(1)
    one, other = generator.random((3, 50)), generator.random((3, 50))
    found = Difference.between(one, other)
    differences = one - other
    by_user, by_seed = differences.mean(0).std(ddof=1) / np.sqrt(50), differences.mean(1).std(ddof=1) / np.sqrt(3)
    assert found.value == pytest.approx(differences.mean())
    assert found.error == pytest.approx(np.sqrt(by_user**2 + by_seed**2))
    assert Difference.between(one[:1], other[:1]).error == pytest.approx((one - other)[0].std(ddof=1) / np.sqrt(50))
    assert str(Difference(-0.0123, 0.002)) == "-.0123 ± .0020"


def test_alpha_names_the_best_its_likes_the_worst_and_a_graph_in_pieces() -> None:
    made = result(
        "alpha",
        row("0.3", 0.0500, at=(0.3,), largest=1.0),
        row("0.4", 0.0580, at=(0.4,), largest=0.99, noise=0.05),
        row("0.5", 0.0581, at=(0.5,), largest=0.97),
        row("0.6", 0.0579, at=(0.6,), largest=0.95, noise=0.06),
        row("0.9", 0.0400, at=(0.9,), largest=0.42),
    )
    assert made.sentence == (
        "Validation NDCG@20 is highest at alpha 0.5 (.0581); within one standard error of it: 0.4 to 0.6. It is "
        "lowest at 0.9 (.0400, -.0181 ± .0000). The graph falls apart at 0.9: its largest component holds 42% of the "
        "items, and there are 40 components, 12 of them isolated items."
    )


def test_alpha_at_the_edge_of_a_whole_graph_and_where_nothing_matters() -> None:
    edge = result("alpha", *(row(f"0.{n}", 0.05 - n / 100, at=(n,), largest=0.9) for n in (3, 4)))
    assert "more than one standard error above the next, 0.4 (-.0100 ± .0000)" in edge.sentence
    assert "That is the edge of the grid" in edge.sentence
    assert edge.sentence.endswith(
        "The graph holds together throughout: its largest component has at least 90% of the items."
    )
    nearly = result("alpha", *(row(f"0.{n}", 0.05 - n / 100, at=(n,), largest=0.9996) for n in (3, 4)))
    assert nearly.sentence.endswith("its largest component has at least 99% of the items.")
    lone = result("alpha", *(row(f"0.{n}", 0.05 - n / 100, at=(n,), largest=0.9, seeds=1) for n in (3, 4)))
    assert lone.sentence.endswith("One seed each: what the seed does is not in the errors.")
    flat = result("alpha", *(row(f"0.{n}", 0.05, at=(n,), largest=0.5, noise=0.1) for n in (3, 4)))
    assert "all 2 settings lie within one standard error of it: the choice does not matter." in flat.sentence
    assert "falls apart at every setting" in flat.sentence


def test_neighbors_tells_what_each_half_of_the_graph_is_worth() -> None:
    made = result(
        "neighbors",
        *(
            row(f"K_s {s}, K_c {c}", 0.05 - s / 1000 + c / 500, at=(s, c), largest=1.0 if s + c else 0.001)
            for s in (0, 10)
            for c in (0, 10)
        ),
    )
    assert "highest at K_s 0, K_c 10 (.0700)" in made.sentence
    assert "From K_s 0 to 10, averaged over the rest, it changes by -.0100 ± .0000." in made.sentence
    assert "From K_c 0 to 10, averaged over the rest, it changes by +.0200 ± .0000." in made.sentence
    assert "falls apart at K_s 0, K_c 0" in made.sentence


def test_a_window_is_set_against_none() -> None:
    rows = row("7 days", 0.06, at=(7,), largest=0.9), row("any", 0.05, at=(np.inf,), largest=1.0)
    assert "the best one (7 days) adds to it (+.0100 ± .0000)" in result("window", *rows).sentence
    noisy = row("7 days", 0.0501, at=(7,), largest=0.9, noise=0.1), rows[1]
    assert "the best one (7 days) is not significant" in result("window", *noisy).sentence
    assert "nothing to compare" in result("window", rows[1]).sentence


def test_ablation_sorts_the_parts_by_significance() -> None:
    made = result(
        "ablation", row("MLLMRec", 0.06), row("no a", 0.05), row("no bcd", 0.0601, noise=0.1), row("+ gcn", 0.08)
    )
    assert made.sentence.startswith("Set against MLLMRec (validation NDCG@20 .0600). Lower: no a (-.0100 ± .0000). ")
    assert "Higher: + gcn (+.0200 ± .0000). Not significant: no bcd (+.0001 ± " in made.sentence


def test_the_leak_is_named_and_its_finding_where_it_turns_round() -> None:
    gcn = " + user-item GCN"
    turned = row("leak-free", 0.06), row("leak-free" + gcn, 0.09), row("LEAKY", 0.18), row("LEAKY" + gcn, 0.15)
    made = result("leak", *turned)
    assert "LEAKY profiles give a validation NDCG@20 of .1800, leak-free ones .0600: 3.0 times" in made.sentence
    assert made.sentence.endswith("that it does harm is an artifact of the leak.")
    assert made.leaky and made.stem == "leak.LEAKY"
    none = result("leak", *turned[:2], row("LEAKY", 0.0601, noise=0.1), row("LEAKY" + gcn, 0.09))
    assert "the leak is not significant here" in none.sentence and "artifact of the leak" not in none.sentence


def test_architecture_says_what_propagation_tells_of_the_profiles() -> None:
    def said(*scores: float) -> str:
        return result("architecture", *(row(f"{n}", score) for n, score in enumerate(scores))).sentence

    assert "adds to them (+.0200 ± .0000): the training interactions hold what the profiles do not" in said(
        0.06, 0.08, 0.05, 0.09
    )
    assert "better (+.0100 ± .0000) without it and worse (-.0100 ± .0000) with it" in said(0.06, 0.08, 0.05, 0.09)
    assert "takes from them (-.0200 ± .0000)" in said(0.06, 0.04, 0.06, 0.06)
    assert "makes no significant difference (+.0000 ± .0000)" in said(0.06, 0.06, 0.06, 0.06)


def test_seeds_gives_mean_spread_and_the_larger_doubt() -> None:
    scores = 0.050, 0.052, 0.054
    made = result("seeds", *(row(f"seed {n}", score) for n, score in enumerate(scores)))
    assert (
        "Over 3 seeds validation NDCG@20 is .0520 ± .0020 (mean, standard deviation), from .0500 to .0540"
        in made.sentence
    )
    assert (
        "may lie .0057 apart, 11% of the mean" in made.sentence
        and "the seeds are the larger source of uncertainty" in made.sentence
    )
    assert "use more (--seeds)" in result("seeds", row("seed 1", 0.05)).sentence


@pytest.mark.parametrize("name", ["alpha", "neighbors", "leak"])
def test_a_study_is_kept_as_table_and_picture(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    labels = ("a", "b", "LEAKY", "LEAKY b") if name == "leak" else ("a", "b", "c", "d")
    rows = [
        row(label, 0.05 + n / 100, 0.051, at=(n // 2, n % 2)[-len(study.axes) :], largest=0.9)
        for n, label in enumerate(labels)
    ]
    made = study.conclude("shop", rows)
    made.save(tmp_path)
    table = pl.read_csv(tmp_path / f"{made.stem}.csv")
    assert table["name"].to_list() == list(labels) and table["leaky"].to_list() == ["LEAKY" in n for n in labels]
    assert table["valid ndcg@20"].to_list() == pytest.approx([r.score for r in rows])
    assert not [column for column in table.columns if "test" in column]
    pictures = draw_study(made, study.axes, tmp_path / made.stem)
    again = draw_study(made, study.axes, tmp_path / "again")
    assert pictures[0].read_bytes() == again[0].read_bytes() and pictures[1].stat().st_size > 5000
    if name == "leak":
        assert all("LEAKY" in path.name for path in pictures)


def test_an_unknown_study_is_named_with_its_near_miss() -> None:
    with pytest.raises(InputError, match=r"no study 'neighbours' \(did you mean 'neighbors'\?\); there are alpha, "):
        find_study("neighbours")
