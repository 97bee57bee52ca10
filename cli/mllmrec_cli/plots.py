"""The verb `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Json, Out


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="plots", rich_help_panel=console.SPEED)(_plots)


def _plots(
    csv: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV that mllmrec bench, mllmrec scale or make bench wrote.")
    ],
    out: Out,
    json: Json = False,
) -> None:
    """Draw a CSV of results: peers beside mllmrec, and scaling curves.

    Example: mllmrec plots bench/results.csv --out bench/plots
    """
    from mllmrec_bench.plots import draw
    from mllmrec_bench.results import read

    pictures = draw(read(csv), out)
    if json:
        console.print_json({"files": [str(file) for file in pictures]})
        return
    for file in pictures:
        console.say(str(file))
    if not pictures:
        console.warn(f"{csv} holds nothing to draw: no peers, and no curve of two sizes")
