"""Verbs over the generation cache, and the plans and batch files of describe and profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Cache, Json

if TYPE_CHECKING:
    from mllmrec.config import Config
    from mllmrec.dataset import Dataset as LoadedDataset
    from mllmrec.experiments.costs import StageCost
    from mllmrec.reason.generate import LimitReached
    from mllmrec.reason.request_plan import StagePlan

_app = typer.Typer(help="The cache of generated texts: stats, verify, prune.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(_app, name="cache", rich_help_panel=console.UPKEEP)


@_app.command()
def stats(cache: Cache = None, json: Json = False) -> None:
    """Print what the cache holds, by question and engine.

    Example: mllmrec cache stats
    """
    from mllmrec.reason.cache import open_cache

    with open_cache(cache) as opened:
        held, path = opened.holdings(), opened.path
    size = path.stat().st_size
    if json:
        console.print_json({"path": str(path), "bytes": size, "holdings": [asdict(one) for one in held]})
        return
    rows = [
        (
            one.question or "unnamed",
            console.short(one.engine, 60) or "unnamed",
            f"{one.rows:,}",
            f"{one.unusable:,}",
            f"{one.characters:,}",
            f"{one.seconds:,.1f}",
        )
        for one in held
    ]
    title = f"{path}, {size / 2**20:,.1f} MiB"
    columns = ("question", "engine", "rows", "unusable", "characters", "seconds")
    console.out.print(console.table(title, columns, rows, words=2))


@_app.command()
def verify(cache: Cache = None, json: Json = False) -> None:
    """Check every row of the cache against its checksum.

    Exit code 1 if rows are damaged; they count as missing, and prune removes
    them.

    Example: mllmrec cache verify
    """
    from mllmrec.reason.cache import open_cache

    with open_cache(cache) as opened:
        rows, damaged = opened.verify()
    if json:
        console.print_json({"rows": rows, "damaged": damaged})
    else:
        console.out.print(f"{rows:,} rows, {damaged:,} damaged")
    if damaged:
        raise typer.Exit(1)


@_app.command(name="prune")
def _prune(
    cache: Cache = None,
    unusable: Annotated[bool, typer.Option("--unusable", help="Also remove answers without usable text.")] = False,
    engine: Annotated[
        str, typer.Option(metavar="TEXT", help="Also remove answers of engines whose fingerprint contains this text.")
    ] = "",
    json: Json = False,
) -> None:
    """Remove damaged rows, and what the options name, and pack the file.

    Example: mllmrec cache prune --unusable
    """
    from mllmrec.reason.cache import open_cache

    with open_cache(cache) as opened:
        gone = opened.prune(unusable=unusable, engine=engine)
    if json:
        console.print_json({"removed": gone})
    else:
        console.out.print(f"{gone:,} rows removed")


def batch_files(
    dataset: Path,
    out: Path,
    config: Config,
    cache: Path | None,
    until: str,
    batch_out: Path | None,
    batch_in: Path | None,
    *,
    retry_failed: bool,
    json: bool,
) -> bool:
    """Read and write batch files of describe or profile; return whether the command is done with that.

    Args:
        dataset: folder of the dataset.
        out: run folder.
        config: of the run.
        cache: the generation cache; None: the user's own.
        until: the stage.
        batch_out: file to write.
        batch_in: results to read.
        retry_failed: write requests again whose answers could not be used.
        json: print the result as JSON.
    """
    from mllmrec.dataset import load
    from mllmrec.errors import InputError
    from mllmrec.pipeline import run
    from mllmrec.reason.batch_files import BatchStage
    from mllmrec.reason.cache import open_cache

    if until not in ("describe", "profile"):
        raise InputError("batch files belong to one stage; use them with mllmrec describe or mllmrec profile")
    loaded = load(dataset)
    described = run(loaded, out, config, until="describe", cache=cache).describe if until == "profile" else None
    with open_cache(cache) as opened:
        if batch_in:
            summary = BatchStage(loaded, config, opened, described).read(batch_in)
            console.err.print(console.plain(f"{batch_in}: {summary}"), soft_wrap=True)
        if batch_out:
            written, refused = BatchStage(loaded, config, opened, described, retry_failed=retry_failed).write(batch_out)
            if json:
                console.print_json({"batch": str(batch_out), "requests": written, "text_only": refused})
            else:
                rest = f"; {refused:,} without a usable picture are recorded as text only" if refused else ""
                console.say(f"{written:,} requests in {batch_out}{rest}")
    return batch_out is not None


def dry_run(dataset: Path, config: Config, cache: Path | None, until: str, *, json: bool) -> None:
    """Print the plan of describe and profile, and of a whole run the predicted seconds and MiB of each stage.

    Args:
        dataset: folder of the dataset.
        config: of the run.
        cache: the generation cache; None: the user's own.
        until: the last stage.
        json: print the result as JSON.
    """
    from mllmrec.dataset import load
    from mllmrec.reason.cache import open_cache
    from mllmrec.reason.prompts import PromptStage
    from mllmrec.reason.request_plan import plan_requests

    loaded = load(dataset, verified=False)
    with open_cache(cache) as opened:
        stages: list[PromptStage] = ["describe"] if until == "describe" else ["describe", "profile"]
        plans = plan_requests(loaded, config, opened, stages)
    costs = _costs(loaded, config) if until == "recommend" else []
    if json:
        predicted = {"predicted": [asdict(cost) for cost in costs]} if costs else {}
        console.print_json({"stages": [asdict(one) for one in plans]} | predicted)
        return
    columns = ("stage", "of", "cached", "calls", "tokens in", "tokens out", "time", "memory")
    console.out.print(console.table("nothing was generated", columns, [_row(one) for one in plans]))
    for one in plans:
        if one.note:
            console.say(f"{one.stage}: {one.note}")
    if costs:
        title = "predicted from sizes for a run from the start, right within a factor of two; without the calls above"
        rows = [(cost.stage, _figure(cost.seconds, " s"), _figure(cost.mib, " MiB")) for cost in costs]
        console.out.print(console.table(title, ("stage", "time", "peak memory"), rows))


def _costs(dataset: LoadedDataset, config: Config) -> list[StageCost]:
    from mllmrec.experiments.costs import machine_speed, measure_sizes, predict_costs

    return predict_costs(measure_sizes(dataset, config), config, machine_speed())


def _figure(value: float | None, unit: str) -> str:
    return "?" if value is None else f"{value:,.0f}{unit}" if value >= 10 else f"{value:,.1f}{unit}"


def _row(one: StagePlan) -> Sequence[str]:
    seconds = "?" if one.seconds is None else f"{one.seconds:,.0f} s"
    memory = "" if one.memory is None else f"{one.memory / 2**30:,.1f} GiB"
    counts = (one.total, one.cached, one.calls, one.prompt_tokens, one.new_tokens)
    return (one.stage, *(f"{count:,}" for count in counts), seconds, memory)


def print_limit(reached: LimitReached, *, json: bool) -> None:
    """Say that the limit is reached, and show what came so far."""
    if json:
        console.print_json({"stopped": str(reached), "samples": [asdict(answer) for answer in reached.samples]})
        return
    for answer in reached.samples:
        line = answer.text or f"({answer.status}: {answer.reason})"
        console.out.print(console.plain(f"- {line}"))
    console.say(str(reached))
