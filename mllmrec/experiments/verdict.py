"""The verdict of an experiment: sentences made only from its numbers.

"Within one standard error" and "significant" (two standard errors) are those of a paired difference; see Difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from mllmrec.audit.graph import APART
from mllmrec.evaluation.evaluate import nobody_to_judge
from mllmrec.evaluation.metrics import short
from mllmrec.experiments.judge import Difference
from mllmrec.experiments.table import Connectivity, Result, Row

_NAMED = 4  # settings that a sentence names before it counts the rest


def comparison(result: Result) -> str:
    """Name the best model and set it against its rival; name nobody if nobody can be judged."""
    if not result.judged:
        return f"No model is best: {nobody_to_judge(result.split)}."
    best = result.reference
    if best is None:
        return "No model is best: every model that was compared is LEAKY."
    head = f"Best on validation: {best.point.title or best.point.name}, test NDCG@20 {short(best.score)}."
    rival = result.row(best.against)
    if rival is None:
        return f"{head} It is the only leak-free model that was compared."
    gap = best.less(rival)
    doubt = "" if gap.significant else ", which is not significant"
    return f"{head} Set against {rival.point.title or rival.point.name} ({short(rival.score)}): {gap}{doubt}."


def alpha(result: Result) -> str:
    """Say which threshold is best, and how it changes the graph."""
    return f"{_highest(result, 'alpha ')}{_at_the_edge(result)} {_connected(result)}"


def window(result: Result) -> str:
    """Say whether a window helps, and how it changes the graph."""
    *limited, unlimited = result.rows
    if not limited:
        return "No training history is longer than the shortest window, so there is nothing to compare."
    best = max(limited, key=lambda row: row.score)
    gain = best.less(unlimited)
    effect = f"{'adds to' if gain.value > 0 else 'takes from'} it" if gain.significant else "is not significant"
    against = f"Set against no window, the best one ({best.point.name}) {effect} ({gain})."
    return f"{_highest(result, 'a window of ')} {against} {_connected(result)}"


def neighbors(result: Result) -> str:
    """Say which K_s and K_c are best, and what each half of the graph is worth."""
    semantic, shared = (_main_effect(result, axis, name) for axis, name in enumerate(("K_s", "K_c")))
    return f"{_highest(result, '')} {semantic} {shared} {_connected(result)}"


def ablation(result: Result) -> str:
    """Set each variant against the whole: lower, higher, not significant."""
    whole = result.require_reference()
    others = [(row.point.name, row.less(whole)) for row in result.rows if row is not whole]
    lower = sorted((gap.value, f"{name} ({gap})") for name, gap in others if gap.significant and gap.value < 0)
    higher = sorted((-gap.value, f"{name} ({gap})") for name, gap in others if gap.significant and gap.value > 0)
    same = [f"{name} ({gap})" for name, gap in others if not gap.significant]
    groups = (
        ("Lower", [text for _, text in lower]),
        ("Higher", [text for _, text in higher]),
        ("Not significant", same),
    )
    listed = " ".join(f"{group}: {', '.join(names)}." for group, names in groups if names)
    return f"Set against {whole.point.name} (validation NDCG@20 {short(whole.score)}). {listed}"


def prompts(result: Result) -> str:
    """Say whether the prompt matters."""
    return _highest(result, "")


def seeds(result: Result) -> str:
    """Give the spread over seeds beside the standard error over users."""
    scores = np.array([row.score for row in result.rows])
    if len(scores) == 1:
        return f"Validation NDCG@20 is {short(scores[0])}; one seed has no spread: use more (--seeds)."
    spread, by_user = float(scores.std(ddof=1)), np.mean([row.values[0] for row in result.rows], axis=0)
    of_users = float(by_user.std(ddof=1) / np.sqrt(len(by_user))) if len(by_user) > 1 else 0.0
    apart = 2 * np.sqrt(2) * spread  # two standard deviations of a difference of two runs
    larger = "users" if of_users > spread else "seeds"
    return (
        f"Over {len(scores)} seeds validation NDCG@20 is {short(scores.mean())} ± {short(spread)} (mean, standard "
        f"deviation), from {short(scores.min())} to {short(scores.max())}; by the seed alone two single runs may lie "
        f"{short(apart)} apart, {apart / max(scores.mean(), 1e-12):.0%} of the mean. The standard error over "
        f"{len(by_user):,} users is {short(of_users)}: the {larger} are the larger source of uncertainty."
    )


def leak(result: Result) -> str:
    """Say what the leak is worth, and whether it reverses the finding on propagation."""
    free, free_gcn, leaked, leaked_gcn = result.rows
    gain = leaked.less(free)
    scores = f"LEAKY profiles give a validation NDCG@20 of {short(leaked.score)}, leak-free ones {short(free.score)}"
    if gain.significant and gain.value > 0:
        times = leaked.score / free.score if free.score > 0 else float("inf")
        first = f"{scores}: {times:.1f} times ({gain}), all of it from the held-out items that they were written from."
    else:
        first = f"{scores} ({gain}): the leak is not significant here."
    plain, leaky = free_gcn.less(free), leaked_gcn.less(leaked)
    second = f"User-item propagation changes leak-free ones by {plain} and LEAKY ones by {leaky}"
    if plain.significant and leaky.significant and plain.value > 0 > leaky.value:
        return f"{first} {second}: that it does harm is an artifact of the leak."
    return f"{first} {second}."


def architecture(result: Result) -> str:
    """Say whether propagation helps, and what that says of the profiles."""
    profiles, profiles_gcn, means, means_gcn = result.rows
    added = profiles_gcn.less(profiles)
    if not added.significant:
        effect = f"makes no significant difference ({added}): it knows nothing useful that the profiles do not"
    elif added.value > 0:
        effect = f"adds to them ({added}): the training interactions hold what the profiles do not"
    else:
        effect = f"takes from them ({added}): it blurs what the profiles say of each user"
    scores = f"{short(profiles.score)} without, {short(profiles_gcn.score)} with"
    alone, together = profiles.less(means), profiles_gcn.less(means_gcn)
    return (
        f"User-item propagation beside profiles (validation NDCG@20 {scores}) {effect}. Against the plain means of "
        f"the users' items the profiles are {_worth(alone)} without it and {_worth(together)} with it."
    )


def _worth(gap: Difference) -> str:
    if not gap.significant:
        return f"not significantly different ({gap})"
    return f"{'better' if gap.value > 0 else 'worse'} ({gap})"


def _highest(result: Result, prefix: str) -> str:
    best, rows, as_good = result.require_reference(), result.rows, result.as_good
    head = f"Validation NDCG@20 is highest at {prefix}{best.point.name} ({short(best.score)})"
    if all(as_good):
        return f"{head}, and all {len(rows)} settings lie within one standard error of it: the choice does not matter."
    others = [row for row in rows if row is not best]
    if sum(as_good) > 1:
        on_axis = len(best.point.at) == 1  # there the best is part of a range
        alike = [good and (on_axis or row is not best) for row, good in zip(rows, as_good, strict=True)]
        head += f"; within one standard error of it: {_names(rows, alike)}."
    else:
        second = max(others, key=lambda row: row.score)
        head += f", more than one standard error above the next, {second.point.name} ({second.less(best)})."
    lowest = min(others, key=lambda row: row.score)
    return f"{head} It is lowest at {lowest.point.name} ({short(lowest.score)}, {lowest.less(best)})."


def _at_the_edge(result: Result) -> str:
    edge = result.require_reference() in (result.rows[0], result.rows[-1]) and not all(result.as_good)
    return " That is the edge of the grid: the best may lie beyond it." if edge else ""


def _names(rows: Sequence[Row], chosen: Sequence[bool]) -> str:
    """Return the chosen rows' names: runs of neighbors on an axis as "a to b", and a count if there are many."""
    if len(rows[0].point.at) == 1:
        runs = [[row for row, _ in run] for on, run in groupby(zip(rows, chosen, strict=True), lambda p: p[1]) if on]
        names = [" to ".join(dict.fromkeys((run[0].point.name, run[-1].point.name))) for run in runs]
        return ", ".join(names)
    names = [row.point.name for row, on in zip(rows, chosen, strict=True) if on]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def _main_effect(result: Result, axis: int, name: str) -> str:
    """Say what the most neighbors of one kind add to none, averaged over the other kind."""
    places = [row.point.at[axis] for row in result.rows]
    ends = [
        np.mean([row.values for row, place in zip(result.rows, places, strict=True) if place == end], axis=0)
        for end in (min(places), max(places))
    ]
    change = Difference.between(ends[1], ends[0])
    doubt = "" if change.significant else ", which is not significant"
    return f"From {name} {min(places):g} to {max(places):g}, averaged over the rest, it changes by {change}{doubt}."


def _connected(result: Result) -> str:
    """Say how connected the graph is over the grid."""
    measured = [(row, row.graph) for row in result.rows if row.graph]
    row, worst = min(measured, key=lambda pair: pair[1].largest)
    apart = [graph.largest < APART for _, graph in measured]
    if not any(apart):
        share = int(100 * worst.largest + 1e-9)  # rounded down, as "at least" needs
        least = "all items" if worst.components == 1 else f"at least {share}% of the items"
        return f"The graph holds together throughout: its largest component has {least}."
    where = "every setting" if all(apart) else _names([row for row, _ in measured], apart)
    there = "" if sum(apart) == 1 else f"at {row.point.name} "
    sentence = (
        f"The graph falls apart at {where}: {there}its largest component holds {_share(worst)}, "
        f"and there are {worst.components:,} components, {worst.isolated:,} of them isolated items."
    )
    best = result.require_reference().graph
    if best and best.largest < APART and not all(apart):
        sentence += " The best setting is one of these: here a graph in pieces serves better than a whole one."
    return sentence


def _share(graph: Connectivity) -> str:
    return f"{graph.largest:.0%} of the items"
