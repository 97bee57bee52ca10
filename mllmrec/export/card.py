"""Write a model card: the run, its results beside the baselines, its limits, and the command that repeats it.

Markdown with the metadata block of the Hugging Face hub. Text from data is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from mllmrec.config import LEAKY, default_values
from mllmrec.dataset import statistics
from mllmrec.evaluation.metrics import RESAMPLES, Interval, decimals, written
from mllmrec.foundation import storage
from mllmrec.foundation.settings import toml_lines
from mllmrec.models import registry
from mllmrec.report.page import shown
from mllmrec.report.sections.results import ResultsTable, results_table
from mllmrec.runs import Run
from mllmrec.runs.record import marked

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&])")  # characters with a meaning within a line


def export_card(run: Run, out: Path) -> Path:
    """Write README.md (README.LEAKY.md for a leaky run) into a folder; return its path.

    Args:
        run: a run; one that is not evaluated gets a card that says so.
        out: folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = storage.make_folder(out) / marked("README.md", leaky=run.leaky)
    storage.write_text(path, model_card(run))
    return path


def model_card(run: Run) -> str:
    """Return the card as markdown."""
    record, model = run.record, registry.title(run.record["config"]["model"]["kind"])
    results = results_table(run.evaluation) if run.has("evaluate") else None
    results = results if results and results.users else None
    metrics = _metrics(results) if results else ()
    return _environment().get_template("card.md.j2").render(
        metadata=_metadata(run, model, results, metrics),
        name=record["dataset"],
        model=f"{model} ({LEAKY})" if run.leaky else model,
        leaky=run.leaky,
        record=record,
        about=_about(record),
        counts=statistics(run.dataset).rows(),
        results=_rows(results, metrics) if results else [],
        metrics=[written(metric) for metric in metrics],
        n_users=f"{results.users:,}" if results else "0",
        n_items=f"{run.dataset.n_items:,}",
        mask_validation=record["config"]["evaluate"]["mask_validation"],
        resamples=f"{RESAMPLES:,}",
        verdict=results.sentence if results else "",
        settings="\n".join(_changed(record["config"])) or "# nothing",
        limits=list(_limits(run)),
        command=_fenced(record["command"] or run.go_on),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mllmrec.export"),
        autoescape=False,  # noqa: S701 - markdown, escaped by the filter below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _escaped
    return environment


def _escaped(text: object) -> str:
    """Return text from data as markdown without markup."""
    return _MARKUP.sub(r"\\\1", shown(str(text)))


def _fenced(text: str) -> str:
    """Return text from data for inside a fence, which it cannot close."""
    return shown(text, 2000).replace("`", "'")


def _metrics(results: ResultsTable) -> tuple[str, str]:
    """Return recall and NDCG at the last cutoff."""
    cutoff = results.judged_by.partition("@")[2]
    return f"recall@{cutoff}", f"ndcg@{cutoff}"


def _rows(results: ResultsTable, metrics: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Return each model's name and cells, mean [low, high]."""
    at = [results.metrics.index(metric) for metric in metrics]
    return [(row.model, [_cell(row.cells[n]) for n in at]) for row in results.rows]


def _cell(score: Interval) -> str:
    return f"{decimals(score.value)} [{decimals(score.low)}, {decimals(score.high)}]"


def _metadata(run: Run, model: str, table: ResultsTable | None, metrics: tuple[str, ...]) -> str:
    """Return the YAML block."""
    name, tags = shown(run.record["dataset"], 80), ["recommendation", "mllmrec"]
    results = []
    if table:
        own = dict(zip(table.metrics, table.own.cells, strict=True))
        results = [
            EvalResult(
                task_type="recommendation",
                task_name=f"top-N recommendation, full ranking{f', {LEAKY}' if run.leaky else ''}",
                dataset_type="tabular",
                dataset_name=name,
                dataset_split="test",
                metric_type=metric.replace("@", "_at_"),
                metric_name=written(metric),
                metric_value=round(own[metric].value, 4),
            )
            for metric in metrics
        ]
    data = ModelCardData(
        model_name=f"{model} on {name}",
        library_name="mllmrec",
        license="unknown",
        tags=[*tags, *([LEAKY] if run.leaky else [])],
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _about(record: Mapping[str, Any]) -> str:
    config = record["config"]
    engine, kind = config["describe"]["engine"], config["profile"]["kind"]
    profiles = {"text": "profiles in words", "mean": "means of item vectors", "hidden": "states of a language model"}
    by = "without a language model, by measuring" if engine == "extractive" else f"by the engine {engine}"
    seen = "all their items, held-out ones too" if record["leaky"] else "training interactions alone"
    return f"Items were described {by}; users are {profiles.get(kind, 'vectors')}, made from {seen}."


def _limits(run: Run) -> Iterator[str]:
    config, numbers = run.record["config"], statistics(run.dataset)
    yield "Offline ranking of held-out interactions: it does not measure the sales that these lists would bring."
    yield "Held-out items are those that customers found without this model; items they never saw count as misses."
    yield f"One dataset, one split, one seed; {numbers.cold_items:,} of its items have no training interaction."
    if config["describe"]["engine"] == "extractive":
        yield "Pictures were measured, not understood: no person, no object of a scene and no lettering is named."
    if run.leaky:
        yield "LEAKY: not for use, and not for comparison with leak-free models."
    yield "Recommendations follow the customers' past, and so does their bias towards popular items."
    yield "The licence is that of the data and of the models used; mllmrec's own code is Apache-2.0."


def _changed(config: Mapping[str, Any]) -> list[str]:
    """Return TOML lines of the settings that are not the defaults."""
    defaults = default_values(config["model"]["kind"])
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            inner = {k: v for k, v in value.items() if v != defaults.get(key, {}).get(k)}
            changed |= {key: inner} if inner else {}
        elif value != defaults.get(key):
            changed[key] = value
    return [_fenced(line) for line in toml_lines(changed) if line]
