"""The verb `scale`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.bench import Features, Neighbors, Rounds, Threads
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Json, Quiet, Seed

if TYPE_CHECKING:
    from mllmrec_bench.results import Result


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="scale", rich_help_panel=console.SPEED)(_scale)


def _scale(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for scale.csv, scale.svg and scale.png.")
    ],
    smallest: Annotated[int, typer.Option(min=50, help="Fewest items.")] = 2_000,
    largest: Annotated[int, typer.Option(min=50, help="Most items.")] = 32_000,
    factor: Annotated[float, typer.Option(help="Between one size and the next.")] = 2.0,
    width: Annotated[
        list[int] | None, typer.Option(min=1, help="Dimensions. May be repeated.", show_default="384")
    ] = None,
    k: Neighbors = 10,
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="Drop cosines below; -1 keeps all.")] = 0.7,
    peers: Annotated[bool, typer.Option("--peers", help="Measure topk_cosine's peers as well.")] = False,
    isotropic: Annotated[bool, typer.Option("--isotropic", help="Rows without any structure.")] = False,
    features: Features = None,
    rounds: Rounds = 5,
    budget: Annotated[float, typer.Option(help="Seconds after which a point begins no new round.")] = 60.0,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time graph construction over a range of sizes, and fit its exponent.

    topk_cosine alone, and the whole item graph. Points that scale.csv holds
    already (same machine, versions and sources) are not measured again.

    Example: mllmrec scale --out scaling --largest 1000000 --peers
    """
    from mllmrec_bench import results
    from mllmrec_bench.bench import Settings
    from mllmrec_bench.datasets import find_source
    from mllmrec_bench.plots import draw
    from mllmrec_bench.scale import Range, as_json, sweep
    from mllmrec_bench.timing import usable_cores

    from mllmrec.foundation.storage import make_folder

    settings = Settings(k=k, threshold=threshold, rounds=rounds, threads=threads or usable_cores(), budget=budget)
    plan = Range(smallest, largest, factor, tuple(width or (384,)), settings, peers, isotropic, seed)
    path = make_folder(out) / "scale.csv"
    lines: list[Result] = []
    with resumable(), console.progress(quiet=quiet or json) as hook:
        for point, _ in sweep(plan, find_source(features, hook), path, hook):
            lines += point
    pictures = draw(results.read(path), out)
    if json:
        console.print_json(as_json(lines))
    elif not quiet:
        _print(lines)
        for file in (path, *pictures):
            console.say(str(file))


def _print(lines: list[Result]) -> None:
    from mllmrec_bench.scale import curves, fits

    extra = curves(lines, "extra MiB")
    fitted = fits(lines)
    for curve, points in curves(lines, "seconds").items():
        more = {point.n: f"{point.result.median:,.1f}" for point in extra.get(curve, [])}
        rows = [
            (f"{p.n:,}", *(f"{t:,.3f}" for t in (p.result.median, p.result.p20, p.result.p80)), more.get(p.n, "?"))
            for p in points
        ]
        console.out.print(console.table(curve.name, ("items", "median s", "p20", "p80", "extra MiB"), rows))
        if curve in fitted:
            console.out.print(f"  time grows as N^{fitted[curve].exponent:.2f}", markup=False)
