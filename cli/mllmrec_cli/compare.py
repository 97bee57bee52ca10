"""The verb `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import completion, console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet

if TYPE_CHECKING:
    from mllmrec.experiments import Result, Row


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="compare", rich_help_panel=console.JUDGE)(_compare)


def _compare(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder; an interrupted comparison goes on there.")
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Models to compare, separated by commas.",
            show_default="all but rivals",
            autocompletion=completion.models,
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each model that is trained.")] = 3,
    config: ConfigFile = None,
    assignments: Assignments = None,
    cache: Cache = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare MLLMRec, its variants and its baselines in one protocol: tuned on validation, several seeds.

    Example: mllmrec compare dataset --out comparison --models ridge,ease
    """
    from mllmrec.config import load_config
    from mllmrec.dataset import load

    resolved = load_config(config, assignments or [])
    from mllmrec.experiments import choose_entries, compare_models

    entries = choose_entries([name.strip() for name in models.split(",") if name.strip()])
    with resumable(), console.progress(quiet=quiet or json) as hook:
        result = compare_models(load(dataset), out, resolved, entries, seeds=seeds, generations=cache, progress=hook)
    if json:
        console.print_json(result.as_dict())
    elif not quiet:
        columns = ("model", "R@20", "N@20 ± sd", "to rival, 95 %", "s", "MiB")
        fitted = "1 seed" if seeds == 1 else f"{seeds} seeds"
        title = f"{result.dataset}: test split, full ranking, {fitted}; tuned on validation"
        console.out.print(console.table(title, columns, [_cells(row) for row in result.rows]))
        console.out.print(console.plain(result.sentence))
        console.say(f"all of it: {out}")


def _cells(row: Row) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    return (
        row.point.title,
        short(row.test["recall@20"]),
        score(row),
        f"{short(row.interval.low, signed=True)} {short(row.interval.high, signed=True)}" if row.against else "",
        f"{row.seconds:,.1f}",
        "" if row.mib is None else f"{row.mib:,.0f}",
    )


def score(row: Row) -> str:
    """Return NDCG@20 of the judged split, with its standard deviation over seeds."""
    from mllmrec.evaluation.metrics import short

    spread = f" ± {short(row.spread['ndcg@20'])}" if row.seeds > 1 else ""
    return short(row.score) + spread


def difference(row: Row, result: Result) -> str:
    """Return the difference to the row that this one is set against, with its standard error."""
    other = result.row(row.against)
    return str(row.less(other)) if other else ""
