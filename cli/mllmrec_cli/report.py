"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Quiet, Seed


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="report", rich_help_panel=console.JUDGE)(_report)


def _report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, made by mllmrec run; several are compared.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="The page's path. Default: in the first run.")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write one page that shows a run, or compares several: results, data, profiles, graph, recommendations.

    Example: mllmrec report run
    """
    from mllmrec.report import write_report

    with console.progress(quiet=quiet) as hook:
        page = write_report(runs, page=html, seed=seed, progress=hook)
    console.out.print(f"page: {page}", markup=False, soft_wrap=True)
