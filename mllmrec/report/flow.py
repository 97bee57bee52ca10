"""What each stage of a run took: time, rate, cache hits, failures, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mllmrec.report.standing import Standing
from mllmrec.run_record import STAGES, Stage
from mllmrec.runs import Run


@dataclass(frozen=True, slots=True)
class Step:
    """One stage as it went when it last ran.

    Attributes:
        stage: its name.
        standing: whether it is done, and still what the config says.
        summary: what it made, in one line.
        seconds: what it took; None where that is not known.
        share: of the seconds of all stages, 0 to 1.
        rate: work a second, such as "120 items/s"; empty where it cannot be told.
        cache: answers found in the generation cache, such as "388 of 388"; empty for stages that ask nothing.
        failed: items or users that brought nothing to use; None for stages that ask nothing.
        peak_mib: highest resident memory of the process meanwhile, None where it was not told.
    """

    stage: Stage
    standing: Standing
    summary: str
    seconds: float | None
    share: float
    rate: str
    cache: str
    failed: int | None
    peak_mib: float | None


def flow(view: Run, standing: Mapping[Stage, Standing]) -> tuple[Step, ...]:
    """Every stage in order, those that are missing too."""
    total = sum(view.record["stages"].get(stage, {}).get("seconds", 0.0) for stage in STAGES) or 1.0
    return tuple(_step(view, stage, standing[stage], total) for stage in STAGES)


def _step(view: Run, stage: Stage, standing: Standing, total: float) -> Step:
    told = view.record["stages"].get(stage, {})
    seconds, counts = told.get("seconds") or None, told.get("counts", {})
    done = standing in ("done", "outdated") and stage in view.record["stages"]
    hits, misses = counts.get("cache hits", 0), counts.get("cache misses", 0)
    return Step(
        stage=stage,
        standing=standing,
        summary=str(told.get("summary", "")),
        seconds=seconds,
        share=(seconds or 0.0) / total,
        rate=_rate(*_work(view, stage, counts), seconds) if done and seconds else "",
        cache=f"{hits:,} of {hits + misses:,}" if hits + misses else "",
        failed=_failed(view, stage) if done else None,
        peak_mib=told.get("peak_mib"),
    )


def _work(view: Run, stage: Stage, counts: Mapping[str, int]) -> tuple[int, str]:
    """What a stage got through when it last ran, and its unit."""
    users, items = view.dataset.n_users, view.dataset.n_items
    match stage:
        case "describe" | "graph":
            return items, "items"
        case "profile" | "recommend":
            return users, "users"
        case "encode":
            return items + users, "texts"
        case "train":
            return counts.get("epochs", 0), "epochs"
        case "evaluate":
            splits = view.evaluation.means
            return sum(view.evaluation.users[split] * len(models) for split, models in splits.items()), "rankings"


def _rate(work: int, unit: str, seconds: float) -> str:
    if work == 0:
        return ""
    rate = work / seconds
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def _failed(view: Run, stage: Stage) -> int | None:
    if stage == "describe":
        return view.descriptions.without_text
    return view.profiles.without_text if stage == "profile" else None
