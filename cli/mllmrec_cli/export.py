"""The verb `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Json, Out


class ExportFormat(StrEnum):
    """Forms that a dataset or a run can be written in."""

    mmrec = "mmrec"
    vectors = "vectors"
    card = "card"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="export", rich_help_panel=console.DATA)(_export)


def _export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|DATASET", help="A run folder; for mmrec a dataset folder will do.")
    ],
    out: Out,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            metavar="FORM",
            help="mmrec: a dataset for the MMRec toolbox. vectors: user and item vectors with ids, to serve from. "
            "card: a model card, README.md.",
        ),
    ] = ExportFormat.mmrec,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="mmrec: write this run's item vectors as well.")
    ] = None,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="mmrec: an apostrophe before ids that begin like a formula.")
    ] = False,
    rank: Annotated[
        int,
        typer.Option(
            min=1, help="vectors: columns that item-item weights become; more are nearer to the lists of recommend."
        ),
    ] = 256,
    json: Json = False,
) -> None:
    """Write a dataset, or what a run made of it, for others to load.

    Models of the kinds mllmrec, ials, bpr, vbpr, lightgcn and freedom have vectors.
    ensemble, ridge, ease and item-knn score by item-item weights: their vectors are
    near, and the manifest says how near.

    Example: mllmrec export run --format vectors --out vectors
    """
    from mllmrec.export import write

    with console.progress(quiet=json) as hook:
        written = write(source, out, form.value, run=run, spreadsheet=spreadsheet, rank=rank, progress=hook)
    if json:
        console.print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        console.say(str(path))
