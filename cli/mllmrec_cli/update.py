"""The verb `update`: a dataset, and a day's new files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Dataset, Json, Quiet


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="update", rich_help_panel=console.DATA)(_update)


def _update(
    dataset: Dataset,
    files: Annotated[
        list[Path],
        typer.Option("--with", metavar="FILE", help="New interactions or items; a folder of them. May be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DATASET", help="Dataset folder to make.")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help="Name a column, as in prepare. May be repeated."),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of each file's rows that may be unreadable.")
    ] = 0.05,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add new interactions and items to a dataset: ids stay, the splits grow.

    New interactions go to training; validation and test stay as they are.
    Go on with: mllmrec run NEW --out RUN2 --from RUN

    Example: mllmrec update dataset --with monday --out dataset2
    """
    from dataclasses import asdict

    from mllmrec import dataset as data

    before = data.load(dataset)
    with resumable(), console.progress(quiet=quiet or json) as hook:
        new = data.update(
            before,
            files,
            out,
            columns=data.parse_columns(column or []),
            max_rejected=max_rejected,
            force=force,
            progress=hook,
        )
    statistics = data.statistics(new)
    for warning in new.manifest["warnings"][len(before.manifest["warnings"]) :]:
        console.warn(warning)
    if json:
        console.print_json(asdict(statistics))
    elif not quiet:
        console.out.print(console.table(f"{new.name} -> {out}", ("of the dataset", "number"), statistics.rows()))
