"""The verb that compares models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import completion, console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet

if TYPE_CHECKING:
    from mllmrec.experiments import Comparison
    from mllmrec.experiments.comparison import Row


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=console.JUDGE)(compare)


def compare(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder; an interrupted comparison goes on there.")
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Which models, separated by commas.",
            show_default="all",
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
    """Judge MLLMRec, its variants and its yardsticks in one protocol: tuned on validation, several seeds.

    Example: mllmrec compare dataset --out comparison --models ridge,ease
    """
    from mllmrec.config import load_config
    from mllmrec.dataset import load

    resolved = load_config(config, assignments or [])
    from mllmrec.experiments import choose_entries, compare_models

    entries = choose_entries([name.strip() for name in models.split(",") if name.strip()])
    with resumable(), console.progress(quiet=quiet or json) as hook:
        made = compare_models(load(dataset), out, resolved, entries, seeds=seeds, generations=cache, progress=hook)
    if json:
        console.print_json(made.as_dict())
    elif not quiet:
        _print(made, out)


def _print(made: Comparison, out: Path) -> None:
    columns = ("model", "R@20", "N@20 ± sd", "to rival, 95 %", "s", "MiB")
    rows = [_cells(row) for row in made.rows]
    title = f"{made.dataset}: test split, full ranking, {made.seeds} seeds; tuned on validation"
    console.out.print(console.table(title, columns, rows))
    if made.best:
        said = f"best on validation: {made.best.title}; its rival: {made.best.rival or 'none'}; all of it: {out}"
        console.say(said)


def _cells(row: Row) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    spread = f"±{short(row.spread['ndcg@20'])}" if row.seeds > 1 else ""
    return (
        row.title,
        short(row.means["recall@20"]),
        short(row.means["ndcg@20"]) + spread,
        f"{short(row.low, signed=True)} {short(row.high, signed=True)}" if row.rival else "",
        f"{row.seconds:,.1f}",
        "" if row.mib is None else f"{row.mib:,.0f}",
    )
