"""Verbs over the generation cache, and what describe and profile would ask of an engine."""

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
    from mllmrec.reason.generate import LimitReached
    from mllmrec.reason.plan import StagePlan

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
            one.ask or "unnamed",
            console.short(one.engine, 60) or "unnamed",
            f"{one.rows:,}",
            f"{one.unusable:,}",
            f"{one.characters:,}",
            f"{one.seconds:,.1f}",
        )
        for one in held
    ]
    title = f"{path}, {size / 2**20:,.1f} MiB"
    columns = ("asked", "engine", "rows", "unusable", "characters", "seconds")
    console.out.print(console.table(title, columns, rows, words=2))


@_app.command()
def verify(cache: Cache = None, json: Json = False) -> None:
    """Check every row of the cache against its checksum.

    Exit code 1 where rows are damaged; they count as missing, and prune removes
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


@_app.command()
def prune(
    cache: Cache = None,
    unusable: Annotated[
        bool, typer.Option("--unusable", help="Also answers that hold no text that could be used.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="TEXT", help="Also answers of engines whose fingerprint holds this text.")
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


def elsewhere(
    dataset: Path,
    out: Path,
    config: Config,
    cache: Path | None,
    until: str,
    batch_out: Path | None,
    batch_in: Path | None,
    *,
    json: bool,
) -> bool:
    """Read and write batch files of describe or profile; whether the command is done with that."""
    from mllmrec.dataset import load
    from mllmrec.errors import InputError
    from mllmrec.pipeline import run
    from mllmrec.reason.cache import open_cache
    from mllmrec.reason.elsewhere import Elsewhere

    if until not in ("describe", "profile"):
        raise InputError("batch files belong to one stage; use them with mllmrec describe or mllmrec profile")
    loaded = load(dataset)
    described = run(loaded, out, config, until="describe", cache=cache).describe if until == "profile" else None
    with open_cache(cache) as opened:
        if batch_in:
            told = Elsewhere(loaded, config, opened, described).read(batch_in)
            console.err.print(console.plain(f"{batch_in}: {told}"), soft_wrap=True)
        if batch_out:
            written = Elsewhere(loaded, config, opened, described).write(batch_out)
            if json:
                console.print_json({"batch": str(batch_out), "requests": written})
            else:
                console.say(f"{written:,} requests in {batch_out}")
    return batch_out is not None


def dry_run(dataset: Path, config: Config, cache: Path | None, until: str, *, json: bool) -> None:
    """Print what describe and profile would ask."""
    from mllmrec.dataset import load
    from mllmrec.reason.cache import open_cache
    from mllmrec.reason.plan import plan

    with open_cache(cache) as opened:
        plans = plan(load(dataset), config, opened, ["describe"] if until == "describe" else ["describe", "profile"])
    if json:
        console.print_json({"stages": [asdict(one) for one in plans]})
        return
    columns = ("stage", "of", "cached", "calls", "tokens in", "tokens out", "time", "memory")
    console.out.print(console.table("nothing was generated", columns, [_row(one) for one in plans]))
    for one in plans:
        if one.note:
            console.say(f"{one.stage}: {one.note}")


def _row(one: StagePlan) -> Sequence[str]:
    seconds = "?" if one.seconds is None else f"{one.seconds:,.0f} s"
    memory = "" if one.memory is None else f"{one.memory / 2**30:,.1f} GiB"
    counts = (one.asked_of, one.cached, one.calls, one.prompt_tokens, one.new_tokens)
    return (one.stage, *(f"{count:,}" for count in counts), seconds, memory)


def print_limit(reached: LimitReached, *, json: bool) -> None:
    """Say that the limit is reached, and show what came so far."""
    if json:
        console.print_json({"stopped": str(reached), "samples": [asdict(answer) for answer in reached.samples]})
        return
    for answer in reached.samples:
        said = answer.text or f"({answer.status}: {answer.reason})"
        console.out.print(console.plain(f"- {said}"))
    console.say(str(reached))
