"""The verb `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Json, Quiet, Seed

if TYPE_CHECKING:
    from mllmrec_bench.bench import Measured

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
    """Add the verb."""
    app.command(name="bench", rich_help_panel=console.SPEED)(_bench)


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
