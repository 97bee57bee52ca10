"""A model card: what a run is, what it reached beside its yardsticks, where its limits are, how to make it again.

Markdown with the metadata block of the Hugging Face hub. Whatever comes from data is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from mllmrec.config import LEAKY, default_values
from mllmrec.dataset import statistics
from mllmrec.evaluation.bootstrap import RESAMPLES, mean_interval
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.foundation import storage
from mllmrec.foundation.settings import toml_lines
from mllmrec.models import registry
from mllmrec.report.page import shown
from mllmrec.run_record import marked
from mllmrec.runs import Run

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&])")  # what means something within a line
_JUDGED_BY = "ndcg"


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A model's line of the card: its name, and a cell a metric, mean [low, high]."""

    model: str
    cells: tuple[str, ...]


def export_card(view: Run, out: Path) -> Path:
    """Write README.md (README.LEAKY.md for a leaky run) into a folder; its path.

    Args:
        view: a run; one that is not evaluated gets a card that says so.
        out: folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = storage.make_folder(out) / marked("README.md", leaky=view.leaky)
    storage.write_text(path, model_card(view))
    return path


def model_card(view: Run) -> str:
    """The card as markdown."""
    record, evaluation = view.record, view.evaluation if view.has("evaluate") else None
    model = registry.title(record["config"]["model"]["kind"])
    judged = evaluation is not None and evaluation.users["test"] > 0
    metrics = _metrics(evaluation) if evaluation and judged else ()
    return _environment().get_template("card.md.j2").render(
        metadata=_metadata(view, model, evaluation if judged else None, metrics),
        name=record["dataset"],
        model=f"{model} ({LEAKY})" if view.leaky else model,
        leaky=view.leaky,
        record=record,
        about=_about(record),
        counts=statistics(view.dataset).rows(),
        results=_results(evaluation, metrics) if evaluation and judged else [],
        metrics=[_title(metric) for metric in metrics],
        n_users=f"{evaluation.users['test']:,}" if evaluation else "0",
        n_items=f"{view.dataset.n_items:,}",
        mask_validation=record["config"]["evaluate"]["mask_validation"],
        resamples=f"{RESAMPLES:,}",
        verdict=_verdict(evaluation, metrics) if evaluation and judged else "",
        settings="\n".join(_changed(record["config"])) or "# nothing",
        limits=list(_limits(view)),
        command=_fenced(record["command"] or view.go_on),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("mllmrec.export"),
        autoescape=False,  # noqa: S701 - markdown, escaped by the filter below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["md"] = _escaped
    return made


def _escaped(text: object) -> str:
    """Text from data as markdown that says it, and does nothing."""
    return _MARKUP.sub(r"\\\1", shown(str(text)))


def _fenced(text: str) -> str:
    """Text from data inside a fence: a line that would close it cannot."""
    return shown(text, 2000).replace("`", "'")


def _metrics(evaluation: Evaluation) -> tuple[str, ...]:
    """Recall and NDCG at 20, or at the largest cutoff there is."""
    names = next(iter(evaluation.means["test"].values()))
    cutoffs = sorted(int(name.partition("@")[2]) for name in names if name.startswith("recall@"))
    cutoff = 20 if 20 in cutoffs else cutoffs[-1]
    return tuple(f"{name}@{cutoff}" for name in ("recall", _JUDGED_BY))


def _title(metric: str) -> str:
    name, _, cutoff = metric.partition("@")
    return f"{'NDCG' if name == 'ndcg' else name.capitalize()}@{cutoff}"


def _values(evaluation: Evaluation, model: str, metric: str) -> NDArray[np.float64]:
    """A model's test value of each user, users in the same order for every model."""
    rows = evaluation.per_user.filter((pl.col("split") == "test") & (pl.col("model") == model))
    return rows.sort("id")[metric].to_numpy()


def _results(evaluation: Evaluation, metrics: Sequence[str]) -> list[ResultRow]:
    rows = []
    for model in evaluation.means["test"]:
        found = [mean_interval(_values(evaluation, model, metric)) for metric in metrics]
        rows.append(ResultRow(model, tuple(f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in found)))
    return rows


def _verdict(evaluation: Evaluation, metrics: Sequence[str]) -> str:
    """The model less the yardstick that validation puts first, user by user."""
    metric = metrics[-1]
    *yardsticks, model = evaluation.means["test"]
    valid = evaluation.means["valid"]
    rival = max(yardsticks, key=lambda name: valid[name][metric])
    ours, theirs = (_values(evaluation, name, metric) for name in (model, rival))
    gap = mean_interval(ours - theirs)
    what = "ahead of" if gap.low > 0 else "behind" if gap.high < 0 else "not told apart from"
    return (
        f"{_title(metric)} of {model} less that of {rival}, the yardstick that validation puts first: "
        f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], paired by user: {what} it."
    )


def _metadata(view: Run, model: str, evaluation: Evaluation | None, metrics: Sequence[str]) -> str:
    """The YAML block."""
    name, tags = shown(view.record["dataset"], 80), ["recommendation", "mllmrec"]
    results = []
    if evaluation:
        mine = list(evaluation.means["test"].values())[-1]
        results = [
            EvalResult(
                task_type="recommendation",
                task_name=f"top-N recommendation, full ranking{f', {LEAKY}' if view.leaky else ''}",
                dataset_type="tabular",
                dataset_name=name,
                dataset_split="test",
                metric_type=metric.replace("@", "_at_"),
                metric_name=_title(metric),
                metric_value=round(mine[metric], 4),
            )
            for metric in metrics
        ]
    data = ModelCardData(
        model_name=f"{model} on {name}",
        library_name="mllmrec",
        license="unknown",
        tags=[*tags, *([LEAKY] if view.leaky else [])],
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _about(record: Mapping[str, Any]) -> str:
    config = record["config"]
    engine, kind = config["describe"]["engine"], config["profile"]["kind"]
    profiles = {"text": "profiles in words", "mean": "means of item vectors", "hidden": "states of a language model"}
    said = "without a language model, by measuring" if engine == "extractive" else f"by the engine {engine}"
    seen = "all their items, held-out ones too" if record["leaky"] else "training interactions alone"
    return f"Items were described {said}; users are {profiles[kind]}, made from {seen}."


def _limits(view: Run) -> Iterator[str]:
    config, numbers = view.record["config"], statistics(view.dataset)
    yield "Offline ranking of held-out interactions: it does not say what showing these lists would sell."
    yield "Held-out items are what customers found without this model; what they never saw counts as a miss."
    yield f"One dataset, one split, one seed; {numbers.cold_items:,} of its items have no training interaction."
    if config["describe"]["engine"] == "extractive":
        yield "Pictures were measured, not understood: no person, no object of a scene and no lettering is named."
    if view.leaky:
        yield "LEAKY: not for use, and not for comparison with honest models."
    yield "Recommendations follow what customers did before, and so does their bias towards popular items."
    yield "The licence is that of the data and of the models used; mllmrec's own code is Apache-2.0."


def _changed(config: Mapping[str, Any]) -> list[str]:
    """TOML lines of the settings that are not the defaults."""
    defaults = default_values(config["model"]["kind"])
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            inner = {k: v for k, v in value.items() if v != defaults.get(key, {}).get(k)}
            changed |= {key: inner} if inner else {}
        elif value != defaults.get(key):
            changed[key] = value
    return [_fenced(line) for line in toml_lines(changed) if line]
