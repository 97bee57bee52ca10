"""The stages of a run: status, time, rate, cache hits, failures, memory, and the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import polars as pl

from mllmrec.errors import InputError
from mllmrec.foundation import digests
from mllmrec.report.figures import Plot, lines
from mllmrec.runs import Run
from mllmrec.runs.record import STAGES, Seal, Stage, read_seal

Status = Literal["done", "missing", "outdated", "damaged"]


def stage_status(run: Run) -> dict[Stage, Status]:
    """Return the status of each stage of a run.

    "outdated" is a stage that was made under another config or from an earlier stage that has since been made
    anew; "damaged" one whose files are not those that it sealed.
    """
    status: dict[Stage, Status] = {}
    seals: dict[str, Seal] = {}
    for stage in STAGES:
        try:
            seals[stage] = read_seal(run.folder, stage)
        except InputError:
            status[stage] = "damaged" if run.has(stage) else "missing"
            continue
        outputs = seals[stage].outputs
        if not outputs or not digests.are_unchanged(run.folder / stage, outputs):
            status[stage] = "damaged"
        else:
            status[stage] = "done" if _current(run, stage, seals, status) else "outdated"
    return status


def _current(run: Run, stage: Stage, seals: Mapping[str, Seal], status: Mapping[Stage, Status]) -> bool:
    inputs, config = seals[stage].inputs, run.record["config"]
    sections = {stage: inputs.get("config", {})} | ({"model": inputs["model"]} if "model" in inputs else {})
    same = all(
        config.get(section, {}).get(key) == value for section, own in sections.items() for key, value in own.items()
    )
    same &= inputs.get("seed", run.record["seed"]) == run.record["seed"]
    read = [earlier for earlier in STAGES if earlier in inputs]
    return same and all(
        status[earlier] == "done" and digests.hash_value(seals[earlier].outputs) == inputs[earlier] for earlier in read
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One stage as it went when it last ran.

    Attributes:
        stage: its name.
        status: whether it is done, and still what the config says.
        summary: its result, in one line.
        seconds: time it took; None if that is not known.
        share: of the seconds of all stages, 0 to 1.
        rate: work a second, such as "120 items/s"; empty if it is not known.
        cache: answers found in the generation cache, such as "388 of 388"; empty for stages without requests.
        failed: items or users without a usable answer; None for stages without requests.
        peak_mib: highest resident memory of the process meanwhile, None if it is not known.
    """

    stage: Stage
    status: Status
    summary: str
    seconds: float | None
    share: float
    rate: str
    cache: str
    failed: int | None
    peak_mib: float | None


def steps(run: Run, status: Mapping[Stage, Status]) -> tuple[Step, ...]:
    """Return every stage in order, also the missing ones."""
    total = sum(run.record["stages"].get(stage, {}).get("seconds", 0.0) for stage in STAGES) or 1.0
    return tuple(_step(run, stage, status[stage], total) for stage in STAGES)


def _step(run: Run, stage: Stage, status: Status, total: float) -> Step:
    record = run.record["stages"].get(stage, {})
    seconds, counts = record.get("seconds") or None, record.get("counts", {})
    done = status in ("done", "outdated") and stage in run.record["stages"]
    hits, misses = counts.get("cache hits", 0), counts.get("cache misses", 0)
    return Step(
        stage=stage,
        status=status,
        summary=str(record.get("summary", "")),
        seconds=seconds,
        share=(seconds or 0.0) / total,
        rate=_rate(*_work(run, stage, counts), seconds) if done and seconds else "",
        cache=f"{hits:,} of {hits + misses:,}" if hits + misses else "",
        failed=_failed(run, stage) if done else None,
        peak_mib=record.get("peak_mib"),
    )


def _work(run: Run, stage: Stage, counts: Mapping[str, int]) -> tuple[int, str]:
    """Return the amount of a stage's work when it last ran, and its unit."""
    users, items = run.dataset.n_users, run.dataset.n_items
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
            splits = run.evaluation.means
            return sum(run.evaluation.users[split] * len(models) for split, models in splits.items()), "rankings"


def _rate(work: int, unit: str, seconds: float) -> str:
    if work == 0:
        return ""
    rate = work / seconds
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def _failed(run: Run, stage: Stage) -> int | None:
    if stage == "describe":
        return run.descriptions.without_text
    return run.profiles.without_text if stage == "profile" else None


@dataclass(frozen=True, slots=True)
class Training:
    """The curves of a model that is trained in epochs.

    Attributes:
        curve: epoch, loss, recall, ndcg: a row per epoch.
        best_epoch: the chosen one, counted from 1.
        seconds: mean of an epoch with its validation, None if it is not known.
        plots: caption and plot.
    """

    curve: pl.DataFrame
    best_epoch: int
    seconds: float | None
    plots: Sequence[Plot]

    @property
    def best(self) -> dict[str, float]:
        """Return the chosen epoch's row."""
        return self.curve.row(self.best_epoch - 1, named=True)


def training(run: Run) -> Training | None:
    """Return the curves of a run whose train stage is done; None for a model that is solved in closed form."""
    if not run.has("train") or not run.fitted.is_network:  # others have no curve; a planted one is left
        return None
    from mllmrec.models.network_model import NetworkModel  # it loads torch

    assert isinstance(run.fitted, NetworkModel)
    curve, best = pl.DataFrame([asdict(epoch) for epoch in run.fitted.curve]), run.fitted.best_epoch
    record = run.record["stages"].get("train", {})
    epochs, seconds = record.get("counts", {}).get("epochs", 0), record.get("seconds", 0.0)
    return Training(curve, best, seconds / epochs if epochs and seconds else None, _plots(curve, best))


def _plots(curve: pl.DataFrame, best: int) -> list[Plot]:
    epochs, mark = curve["epoch"].to_numpy(), (float(best), f"chosen: epoch {best}")
    metrics = {"Recall@20": (epochs, curve["recall"].to_numpy()), "NDCG@20": (epochs, curve["ndcg"].to_numpy())}
    loss = {"training loss": (epochs, curve["loss"].to_numpy())}
    return [
        (
            "On the validation split: training stops where Recall@20 no longer rises.",
            lines(metrics, xlabel="epoch", ylabel="validation metric", name="validation curves", mark=mark),
        ),
        (
            "The loss on the training pairs.",
            lines(loss, xlabel="epoch", ylabel="BPR loss, mean of a pair", name="training loss", mark=mark),
        ),
    ]
