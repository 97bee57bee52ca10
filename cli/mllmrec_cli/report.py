"""The verb that writes a run's page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")],
    html: Annotated[
        Path | None, typer.Option("--html", help="Where the page goes; by default into the first run's folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every sample.")] = 0,
) -> None:
    """Write one page that shows a run, or compares several: results, data, profiles, graph, recommendations.

    Example: mllmrec report run
    """
    from mllmrec.report import write_report

    page = write_report(runs, page=html, seed=seed)
    console.out.print(f"page: {page}", markup=False, soft_wrap=True)
