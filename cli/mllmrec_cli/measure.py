"""Verbs about speed: bench, scale, plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Json, Out, Quiet, Seed

if TYPE_CHECKING:
    from mllmrec_bench.bench import Measured
    from mllmrec_bench.material import Material, Sizes
    from mllmrec_bench.results import Result
    from mllmrec_bench.source import Source

    from mllmrec.foundation.progress import Progress

Features = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A .npy file of vectors, one a row, that generated ones are to be like.",
        show_default="the demo shop's text",
    ),
]
Neighbours = Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours an item.")]
Rounds = Annotated[int, typer.Option(min=1, help="Timed runs of each method, in turn, after one to warm up.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of every method.", show_default="all cores")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (bench, scale, plots):
        app.command(rich_help_panel=console.SPEED)(verb)


def bench(
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
    k: Neighbours = 10,
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
    installed is named with its pip command and left out.

    Example: mllmrec bench topk_cosine --items 50000
    """
    from mllmrec_bench.bench import Settings, find_ops, measure
    from mllmrec_bench.material import Sizes
    from mllmrec_bench.results import Stamp, append, as_json
    from mllmrec_bench.timing import misjudged_blas, usable_cores

    settings = Settings(k=k, threshold=threshold, rounds=rounds, threads=threads or usable_cores())
    sizes = Sizes(items=items, users=users, interactions=interactions, edges=edges)
    ops, stamp, shown = find_ops(op), Stamp.now(settings.threads), []
    with console.progress(quiet=quiet or json) as hook:
        material = _material(dataset, run, features, sizes, seed, hook)
        for one in ops:
            for case in one.cases(material, settings):
                done = measure(case, settings, hook)
                shown += done.results(stamp)
                if csv:
                    append(csv, done.results(stamp))
                if not (quiet or json):
                    _print(done)
    if doubt := misjudged_blas():
        console.warn(doubt)
    if json:
        console.print_json(as_json(shown))


def _material(
    dataset: Path | None, run: Path | None, features: Path | None, sizes: Sizes, seed: int, hook: Progress
) -> Material:
    from mllmrec_bench.material import Generated, Own

    from mllmrec.dataset import load
    from mllmrec.errors import ConfigError

    if sum(where is not None for where in (dataset, run, features)) > 1:
        raise ConfigError("--dataset, --run and --features exclude each other; give one of them")
    if run:
        return Own.of_run(run)
    if dataset:
        return Own(load(dataset), progress=hook)
    return Generated(sizes, _source(features, hook), seed)


def _source(features: Path | None, hook: Progress) -> Source:
    from mllmrec_bench.source import demo_source, file_source

    return file_source(features) if features else demo_source(hook)


def _print(done: Measured) -> None:
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
    if done.case.about:
        console.out.print(f"  input: {done.case.about}", markup=False)
    for timed in done.others:
        if difference := done.differs(timed.name):
            console.out.print(f"  {timed.name}: {difference}", markup=False)
    for peer in done.absent:
        console.out.print(f"  {peer.name} is not installed, and left out: {peer.install}", markup=False)
    if strongest:
        times = strongest.slower_than(done.ours)
        spread = f"{times.median:.2f} times as long ({times.p20:.2f}-{times.p80:.2f})"
        console.out.print(f"  * strongest peer: {strongest.name} takes {spread}", markup=False)


def scale(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for scale.csv, scale.svg and scale.png.")
    ],
    smallest: Annotated[int, typer.Option(min=50, help="Fewest items.")] = 2_000,
    largest: Annotated[int, typer.Option(min=50, help="Most items.")] = 32_000,
    factor: Annotated[float, typer.Option(help="Between one size and the next.")] = 2.0,
    width: Annotated[
        list[int] | None, typer.Option(min=1, help="Dimensions. May be repeated.", show_default="384")
    ] = None,
    k: Neighbours = 10,
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
    from mllmrec_bench.plots import draw
    from mllmrec_bench.scale import Range, sweep
    from mllmrec_bench.timing import usable_cores

    from mllmrec.foundation.storage import make_folder

    settings = Settings(k=k, threshold=threshold, rounds=rounds, threads=threads or usable_cores(), budget=budget)
    asked = Range(smallest, largest, factor, tuple(width or (384,)), settings, peers, isotropic, seed)
    path = make_folder(out) / "scale.csv"
    lines = []
    with resumable(), console.progress(quiet=quiet or json) as hook:
        for point, _ in sweep(asked, _source(features, hook), path, hook):
            lines += point
    drawn = draw(results.read(path), out)
    if json:
        console.print_json(_scaled_json(lines))
    elif not quiet:
        _print_scale(lines)
        for file in (path, *drawn):
            console.say(str(file))


def _scaled_json(lines: list[Result]) -> dict[str, object]:
    from dataclasses import asdict

    from mllmrec_bench.results import as_json
    from mllmrec_bench.scale import fits

    return {"results": as_json(lines), "fits": {curve.name: asdict(fit) for curve, fit in fits(lines).items()}}


def _print_scale(lines: list[Result]) -> None:
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


def plots(
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

    drawn = draw(read(csv), out)
    if json:
        console.print_json({"files": [str(file) for file in drawn]})
        return
    for file in drawn:
        console.say(str(file))
    if not drawn:
        console.warn(f"{csv} holds nothing to draw: no peers, and no curve of two sizes")
