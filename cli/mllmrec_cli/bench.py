"""The verbs `bench`, `scale` and `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.console import resumable
from mllmrec_cli.options import Json, Out, Quiet, Seed

if TYPE_CHECKING:
    from mllmrec_bench.bench import Measured
    from mllmrec_bench.results import Result

Features = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A .npy file of vectors, one a row, that generated ones are like.",
        show_default="the demo shop's text",
    ),
]
Neighbors = Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbors an item.")]
Rounds = Annotated[int, typer.Option(min=1, help="Timed runs of each method, in turn, after one to warm up.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of every method.", show_default="all cores")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="bench", rich_help_panel=console.SPEED)(_bench)
    app.command(name="scale", rich_help_panel=console.SPEED)(_scale)
    app.command(name="plots", rich_help_panel=console.SPEED)(_plots)


def _bench(
    op: Annotated[
        str | None, typer.Argument(metavar="OP", help="One op, such as topk_cosine.", show_default="all")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Measure on this dataset instead of generated data.")
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="Measure on a run's vectors and graph.")] = None,
    features: Features = None,
    items: Annotated[int, typer.Option(min=50, help="Generated items.")] = 10_000,
    users: Annotated[int, typer.Option(min=1, help="Generated users.")] = 20_000,
    interactions: Annotated[int, typer.Option(min=1, help="Generated interactions.")] = 200_000,
    edges: Annotated[int, typer.Option(min=1, help="Edges an item of the generated graph.")] = 20,
    k: Neighbors = 10,
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="Of topk_cosine's second case.")] = 0.7,
    rounds: Rounds = 5,
    threads: Threads = None,
    seed: Seed = 0,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Append the results to this CSV.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time every kernel beside its peers: faiss, torch, scipy, implicit, sparse_dot_topn.

    All methods in turn, in one process, with the same number of threads.
    The table has medians, 20th and 80th percentiles, each peer's time over
    mllmrec's, and the peak memory beyond input and result. A peer that is not
    installed is named and left out; the extra mllmrec[bench] has them all.

    Example: mllmrec bench topk_cosine --items 50000
    """
    from mllmrec_bench.bench import Settings, find_ops, measure_ops
    from mllmrec_bench.datasets import Sizes, choose_data
    from mllmrec_bench.results import as_json
    from mllmrec_bench.timing import misjudged_blas, usable_cores

    settings = Settings(k=k, threshold=threshold, rounds=rounds, threads=threads or usable_cores())
    sizes = Sizes(items=items, users=users, interactions=interactions, edges=edges)
    ops, lines = find_ops(op), []
    with console.progress(quiet=quiet or json) as hook:
        data = choose_data(sizes, dataset=dataset, run=run, features=features, seed=seed, progress=hook)
        for done, results in measure_ops(ops, data, settings, csv, hook):
            lines += results
            if not (quiet or json):
                _print(done)
    if doubt := misjudged_blas():
        console.warn(doubt)
    if json:
        console.print_json(as_json(lines))


def _print(done: Measured) -> None:
    from mllmrec_bench.peers.case import INSTALL
    from mllmrec_bench.timing import Quantiles

    strongest = done.strongest
    rows = []
    for timed in (done.ours, *done.others):
        seconds = Quantiles.of(timed.seconds)
        extra = "?" if timed.extra_bytes is None else f"{timed.extra_bytes / 2**20:,.1f}"
        ratio = "" if timed is done.ours else f"{timed.slower_than(done.ours).median:.2f}"
        name = f"{timed.name}{' *' if timed is strongest else ''}"
        rows.append((name, *(f"{1000 * t:,.1f}" for t in (seconds.median, seconds.p20, seconds.p80)), ratio, extra))
    columns = ("method", "ms", "p20", "p80", "ratio", "extra MiB")
    console.out.print(console.table(f"{done.case.op}: {done.case.name}", columns, rows))
    notes = [f"input: {done.case.about}"] if done.case.about else []
    notes += [f"{timed.name}: {note}" for timed in done.others if (note := done.differs(timed.name))]
    notes += [f"{peer.name} is not installed, and left out: {INSTALL}" for peer in done.absent]
    if strongest:
        times = strongest.slower_than(done.ours)
        spread = f"{times.median:.2f} times as long ({times.p20:.2f}-{times.p80:.2f})"
        notes.append(f"* strongest peer: {strongest.name} takes {spread}")
    for note in notes:
        console.out.print(f"  {note}", markup=False)


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
        _print_curves(lines)
        for file in (path, *pictures):
            console.say(str(file))


def _print_curves(lines: list[Result]) -> None:
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
