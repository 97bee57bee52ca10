"""What a study means, said from its numbers alone.

"Within one standard error" and "can be told" (two standard errors) are those of a paired difference; see Contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from mllmrec.audit.graph import APART
from mllmrec.evaluation.metrics import short
from mllmrec.experiments.study_result import Connectivity, Contrast, Result, Row

_NAMED = 4  # settings that a sentence names before it counts the rest


def alpha(result: Result) -> str:
    """Where the threshold serves best, and what it does to the graph."""
    return f"{_highest(result, 'alpha ')}{_at_the_edge(result)} {_hold(result)}"


def window(result: Result) -> str:
    """Whether a window helps, and what it does to the graph."""
    *limited, unlimited = result.rows
    if not limited:
        return "No training history is longer than the shortest window, so there is nothing to compare."
    best = max(limited, key=lambda row: row.score)
    gain = best.less(unlimited)
    helps = f"{'adds to' if gain.difference > 0 else 'takes from'} it" if gain.clear else "cannot be told from none"
    against = f"Set against no window, the best one ({best.point.label}) {helps} ({gain})."
    return f"{_highest(result, 'a window of ')} {against} {_hold(result)}"


def neighbours(result: Result) -> str:
    """Which K_s and K_c, and what each half of the graph is worth."""
    semantic, shared = (_main_effect(result, axis, name) for axis, name in enumerate(("K_s", "K_c")))
    return f"{_highest(result, '')} {semantic} {shared} {_hold(result)}"


def ablation(result: Result) -> str:
    """What each part is worth, against the whole."""
    return _against(result, result.reference)


def prompts(result: Result) -> str:
    """Whether the wording matters."""
    return _highest(result, "")


def seeds(result: Result) -> str:
    """The spread, and how it compares with the doubt that the users leave."""
    scores = np.array([row.score for row in result.rows])
    if len(scores) == 1:
        return (
            f"Validation NDCG@20 is {short(scores[0])}; one seed tells nothing of the spread: ask for more (--seeds)."
        )
    spread, by_user = float(scores.std(ddof=1)), np.mean([row.values[0] for row in result.rows], axis=0)
    of_users = float(by_user.std(ddof=1) / np.sqrt(len(by_user))) if len(by_user) > 1 else 0.0
    apart = 2 * np.sqrt(2) * spread  # two standard deviations of a difference of two runs
    larger = "the users are the larger doubt" if of_users > spread else "the seed is the larger doubt"
    return (
        f"Over {len(scores)} seeds validation NDCG@20 is {short(scores.mean())} ± {short(spread)} (mean, standard "
        f"deviation), from {short(scores.min())} to {short(scores.max())}; by the seed alone two single runs may lie "
        f"{short(apart)} apart, {apart / max(scores.mean(), 1e-12):.0%} of the mean. The standard error over "
        f"{len(by_user):,} users is {short(of_users)}: {larger}."
    )


def leak(result: Result) -> str:
    """What the leak is worth, and whether it turns the finding on propagation round."""
    honest, honest_gcn, leaked, leaked_gcn = result.rows
    gain = leaked.less(honest)
    reach = f"LEAKY profiles reach a validation NDCG@20 of {short(leaked.score)}, honest ones {short(honest.score)}"
    if gain.clear and gain.difference > 0:
        times = leaked.score / honest.score if honest.score > 0 else float("inf")
        first = f"{reach}: {times:.1f} times ({gain}), all of it from the held-out items that they were written from."
    else:
        first = f"{reach} ({gain}): what they were told of held-out items cannot be seen here."
    plain, leaky = honest_gcn.less(honest), leaked_gcn.less(leaked)
    second = f"User-item propagation changes honest ones by {plain} and LEAKY ones by {leaky}"
    if plain.clear and leaky.clear and plain.difference > 0 > leaky.difference:
        return f"{first} {second}: that it does harm is a finding of the leak."
    return f"{first} {second}."


def architecture(result: Result) -> str:
    """Whether propagation helps, and what that says of the profiles."""
    profiles, profiles_gcn, means, means_gcn = result.rows
    added = profiles_gcn.less(profiles)
    if not added.clear:
        says = f"changes nothing that can be told ({added}): it knows nothing of use that the profiles do not"
    elif added.difference > 0:
        says = f"adds to them ({added}): the training interactions know of the users what the profiles do not tell"
    else:
        says = f"takes from them ({added}): it blurs what the profiles tell of each user"
    scores = f"{short(profiles.score)} without, {short(profiles_gcn.score)} with"
    alone, together = profiles.less(means), profiles_gcn.less(means_gcn)
    return (
        f"User-item propagation beside profiles (validation NDCG@20 {scores}) {says}. Against the plain means of the "
        f"users' items the profiles are {_worth(alone)} without it and {_worth(together)} with it."
    )


def _worth(contrast: Contrast) -> str:
    if not contrast.clear:
        return f"worth the same ({contrast})"
    return f"{'better' if contrast.difference > 0 else 'worse'} ({contrast})"


def _against(result: Result, whole: Row) -> str:
    """Every other row against one of them, sorted by what can be told."""
    others = [(row.point.label, row.less(whole)) for row in result.rows if row is not whole]
    lower = sorted((c.difference, f"{name} ({c})") for name, c in others if c.clear and c.difference < 0)
    higher = sorted((-c.difference, f"{name} ({c})") for name, c in others if c.clear and c.difference > 0)
    same = [f"{name} ({c})" for name, c in others if not c.clear]
    groups = (
        ("Lower", [text for _, text in lower]),
        ("Higher", [text for _, text in higher]),
        ("Not to be told from it", same),
    )
    said = " ".join(f"{what}: {', '.join(names)}." for what, names in groups if names)
    return f"Set against {whole.point.label} (validation NDCG@20 {short(whole.score)}). {said}"


def _highest(result: Result, what: str) -> str:
    best, rows, as_good = result.reference, result.rows, result.as_good
    head = f"Validation NDCG@20 is highest at {what}{best.point.label} ({short(best.score)})"
    if all(as_good):
        return f"{head}, and all {len(rows)} settings lie within one standard error of it: the choice does not matter."
    others = [row for row in rows if row is not best]
    if sum(as_good) > 1:
        on_axis = len(best.point.at) == 1  # there the best is part of a range
        alike = [good and (on_axis or row is not best) for row, good in zip(rows, as_good, strict=True)]
        head += f"; within one standard error of it: {_names(rows, alike)}."
    else:
        second = max(others, key=lambda row: row.score)
        head += f", more than one standard error above the next, {second.point.label} ({second.less(best)})."
    lowest = min(others, key=lambda row: row.score)
    return f"{head} It is lowest at {lowest.point.label} ({short(lowest.score)}, {lowest.less(best)})."


def _at_the_edge(result: Result) -> str:
    edge = result.reference in (result.rows[0], result.rows[-1]) and not all(result.as_good)
    return " That is the edge of the grid: the best may lie beyond it." if edge else ""


def _names(rows: Sequence[Row], chosen: Sequence[bool]) -> str:
    """The chosen rows' labels: runs of neighbours on an axis as "a to b", and a count where there are many."""
    if len(rows[0].point.at) == 1:
        runs = [[row for row, _ in run] for on, run in groupby(zip(rows, chosen, strict=True), lambda p: p[1]) if on]
        names = [" to ".join(dict.fromkeys((run[0].point.label, run[-1].point.label))) for run in runs]
        return ", ".join(names)
    names = [row.point.label for row, on in zip(rows, chosen, strict=True) if on]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def _main_effect(result: Result, axis: int, name: str) -> str:
    """From none of one kind of neighbours to the most, averaged over the other kind."""
    places = [row.point.at[axis] for row in result.rows]
    ends = [
        np.mean([row.values for row, place in zip(result.rows, places, strict=True) if place == end], axis=0)
        for end in (min(places), max(places))
    ]
    change = Contrast.between(ends[1], ends[0])
    told = "" if change.clear else ", which cannot be told from nothing"
    return f"From {name} {min(places):g} to {max(places):g}, averaged over the rest, it changes by {change}{told}."


def _hold(result: Result) -> str:
    """How the graph hangs together over the grid."""
    measured = [(row, row.graph) for row in result.rows if row.graph]
    row, worst = min(measured, key=lambda pair: pair[1].largest)
    apart = [graph.largest < APART for _, graph in measured]
    if not any(apart):
        share = int(100 * worst.largest + 1e-9)  # rounded down, as "at least" wants
        least = "all items" if worst.components == 1 else f"at least {share}% of the items"
        return f"The graph holds together throughout: its largest component has {least}."
    where = "every setting" if all(apart) else _names([row for row, _ in measured], apart)
    there = "" if sum(apart) == 1 else f"at {row.point.label} "
    said = (
        f"The graph falls apart at {where}: {there}its largest component holds {_share(worst)}, "
        f"and there are {worst.components:,} components, {worst.isolated:,} of them isolated items."
    )
    best = result.reference.graph
    if best and best.largest < APART and not all(apart):
        said += " The best setting is one of these: here a graph in pieces serves better than a whole one."
    return said


def _share(graph: Connectivity) -> str:
    return f"{graph.largest:.0%} of the items"
