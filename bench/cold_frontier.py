"""The frontier of new items against known ones: ours, and every yardstick's.

    make frontier RUN=folder  # of `mllmrec encode DATASET --out RUN --set profile.kind=mean`

A draw hides a share of the items: all their interactions are test. Of the other items, validation stays validation,
and everything else is training. A model ranks the whole catalogue. Its new items are judged by test, its known ones by
validation, and both in one list for the users who have either. The loss of known items is against the same model with
no new item shown. Our points are `model.new_items`; the neighbors' columns have their scale.

Written: frontier.csv, frontier.svg and .png, and a table. A draw that is done is kept, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from mllmrec_cli import console
from mllmrec_kernels import CSR

from mllmrec.dataset import Dataset
from mllmrec.errors import MllmrecError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.metrics import mean_interval
from mllmrec.features.encode import Vectors
from mllmrec.foundation.storage import make_folder, write_table
from mllmrec.models import Ensemble, registry
from mllmrec.models.base import FitData, Recommender
from mllmrec.models.ensemble import EnsembleConfig
from mllmrec.models.new_item_placement import split_columns
from mllmrec.report.figures import COLORS, plot_style, write_figure
from mllmrec.runs import Run

M = TypeVar("M", bound=Recommender)
SHARES = (0.01, 0.02, 0.03, 0.05, 0.1)  # of model.new_items
SCALES = (0.6, 1.0, 1.3, 2.0, 3.0)  # of the neighbors' columns
CUTOFF = 20
OURS = "ensemble"
YARDSTICKS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("item-kNN", "item-knn", {}),
    ("content", "content", {}),
    ("content, half-whitened", "content", {"space": "half-whitened"}),
    ("content, projected", "content", {"space": "projected"}),
    ("CLCRec", "clcrec", {}),
    *((f"neighbors' columns x {scale:g}", "ease-neighbors", {"cold_scale": scale}) for scale in SCALES),
)


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of hidden items.

    Attributes:
        train, valid, test: binary [U, I]; test holds every interaction of the hidden items.
        items: float32 [I, d].
        seed: of the draw and the fits.
    """

    train: CSR
    valid: CSR
    test: CSR
    items: Vectors
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, judge every model on every draw, print and draw the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run whose items are encoded")
    parser.add_argument("--out", type=Path, default=Path("frontier"), help="folder of the results")
    parser.add_argument("--draws", type=int, default=3, help="draws of hidden items, by seeds from 1 on")
    parser.add_argument("--share", type=float, default=0.1, help="hidden items, of all")
    options = parser.parse_args(arguments)
    if not options.run.is_dir():
        print(f"frontier: there is no folder {options.run}; nothing was fitted. Name it: make frontier RUN=folder")
        return 0
    try:
        run, out = Run(options.run), make_folder(options.out)
        tables = [
            _kept(run.dataset, run.features.items, options.share, seed, out) for seed in range(1, options.draws + 1)
        ]
    except MllmrecError as error:
        print(f"frontier: {error}", file=sys.stderr)
        return 1
    table = pl.concat([rows for rows, _ in tables])
    means = table.drop("draw").group_by("model", "point", maintain_order=True).mean()
    means.write_csv(out / "frontier.csv")
    _print(run.dataset.name, means, len(tables))
    for line in _mixed_gaps([users for _, users in tables]):
        console.say(line)
    for path in draw_frontier(means, out / "frontier"):
        console.say(str(path))
    return 0


def hide_items(dataset: Dataset, items: Vectors, share: float, seed: int) -> Draw:
    """Return a draw of a dataset.

    Args:
        dataset: with validation interactions.
        items: float32 [I, d].
        share: of the items, hidden.
        seed: of the draw.
    """
    count = round(share * dataset.n_items)
    hidden = np.sort(np.random.default_rng(seed).choice(dataset.n_items, count, replace=False))
    everything = dataset.histories("all").user_items()
    rest, test = split_columns(everything, hidden)
    valid = split_columns(dataset.matrix("valid"), hidden)[0]
    train = rest.to_scipy() - valid.to_scipy()
    train.eliminate_zeros()
    return Draw(CSR.from_scipy(train, binary=True), valid, test, items, seed)


def _kept(dataset: Dataset, items: Vectors, share: float, seed: int, out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of one draw, and NDCG@20 of each user in the mixed test by point; what is done is read.

    Args:
        dataset: with validation interactions.
        items: float32 [I, d].
        share: of the items, hidden.
        seed: of the draw.
        out: folder of what is done.
    """
    draw, rows, users = hide_items(dataset, items, share, seed), [], []
    for title, points in _models(draw):
        stem = f"{share:g}-{seed}-{title.replace(' ', '-').replace(chr(39), '')}"
        done = out / f"{stem}.parquet", out / f"{stem}.users.parquet"  # with_suffix would cut at the share's point
        if not all(file.exists() for file in done):
            judged = [_judge(draw, *point) for point in points()]
            write_table(done[1], pl.DataFrame({f"{row['model']} {row['point']}": values for row, values in judged}))
            write_table(done[0], pl.DataFrame([row for row, _ in judged]))
        rows.append(pl.read_parquet(done[0]))
        users.append(pl.read_parquet(done[1]))
    return pl.concat(rows), pl.concat(users, how="horizontal")


def _models(draw: Draw) -> Iterator[tuple[str, Callable[[], Iterator[tuple[str, str, Recommender]]]]]:
    """Yield every title and a function that yields its points: model, point and the fitted model."""
    for title, kind, settings in YARDSTICKS:
        if kind in registry.MODELS:
            yield title, partial(_yardstick, draw, title, kind, settings)
    yield OURS, partial(_ours, draw)


def _yardstick(draw: Draw, title: str, kind: str, settings: dict[str, Any]) -> Iterator[tuple[str, str, Recommender]]:
    name, _, point = title.partition(" x ")
    yield name, point, _fit(registry.find(kind)(**settings), draw)


def _ours(draw: Draw) -> Iterator[tuple[str, str, Recommender]]:
    """Yield the ensemble with no new item shown, then at each share; it is fitted once."""
    fitted = _fit(Ensemble(new_items=0.0), draw)
    yield OURS, "0", fitted
    data = FitData(draw.train, draw.items, None, draw.valid, draw.seed)
    for share in SHARES:
        shown = copy(fitted)
        shown.ridge = copy(fitted.ridge)
        shown.fit_new_items(data, draw.valid, share)
        yield OURS, f"{share:g}", shown


def _fit(model: M, draw: Draw) -> M:
    started = time.perf_counter()
    model.fit(draw.train, item_features=draw.items, valid=draw.valid, seed=draw.seed)
    print(f"draw {draw.seed}: {model.title}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return model


def _judge(
    draw: Draw, name: str, point: str, model: Recommender
) -> tuple[dict[str, float | str | int], metrics.Floats]:
    """Return the row of one point, and NDCG@20 of each user in the mixed test."""
    hidden = np.unique(draw.test.indices)
    everywhere = np.repeat(np.arange(draw.train.n_rows), len(hidden)), np.tile(hidden, draw.train.n_rows)
    closed = CSR.from_scipy(
        draw.train.to_scipy() + CSR.from_pairs(*everywhere, draw.train.shape).to_scipy(), binary=True
    )
    mixed = CSR.from_scipy(draw.valid.to_scipy() + draw.test.to_scipy(), binary=True)
    new, known, both = (_values(model, draw.train, draw.train, held) for held in (draw.test, draw.valid, mixed))
    alone = _values(model, draw.train, closed, draw.valid)
    mean = {
        name: metrics.mean(values)
        for name, values in {"new": new, "known": known, "alone": alone, "mixed": both}.items()
    }
    row: dict[str, float | str | int] = {"draw": draw.seed, "model": name, "point": point}
    for metric in ("recall", "ndcg"):
        for group in ("new", "known", "mixed"):
            row[f"{group}_{metric}"] = mean[group][f"{metric}@{CUTOFF}"]
        row[f"lost_{metric}"] = 1 - mean["known"][f"{metric}@{CUTOFF}"] / mean["alone"][f"{metric}@{CUTOFF}"]
    return row, both[f"ndcg@{CUTOFF}"]


def _values(model: Recommender, train: CSR, exclude: CSR, held: CSR) -> dict[str, metrics.Floats]:
    """Return the metrics of each user with training items; NaN of the others."""
    ranks = model.ranks(exclude, held, limit=CUTOFF)
    known = np.diff(train.indptr) > 0
    return {
        name: np.where(known, values, np.nan)
        for name, values in metrics.per_user(ranks, held.indptr, (CUTOFF,)).items()
    }


def _mixed_gaps(draws: Sequence[pl.DataFrame]) -> Iterator[str]:
    """Yield the default's mixed NDCG@20 less that of each other point, with its interval over users."""
    ours = f"{OURS} {EnsembleConfig().new_items:g}"
    for name in (name for name in draws[0].columns if name != ours):
        gaps = np.mean([frame[ours].to_numpy() - frame[name].to_numpy() for frame in draws], axis=0)
        gap = mean_interval(gaps[np.isfinite(gaps)])
        yield f"mixed NDCG@20, {ours} less {name}: {gap.signed}"


def _print(dataset: str, means: pl.DataFrame, draws: int) -> None:
    columns = (
        "model",
        "point",
        "new R@20",
        "new N@20",
        "known R@20",
        "lost R@20",
        "lost N@20",
        "mixed N@20",
    )
    names = ("new_recall", "new_ndcg", "known_recall", "lost_recall", "lost_ndcg", "mixed_ndcg")
    rows = [
        (row["model"], row["point"], *(metrics.short(row[name]) for name in names))
        for row in means.iter_rows(named=True)
    ]
    console.out.print(console.table(f"{dataset}: mean of {draws} draws", columns, rows))


def draw_frontier(means: pl.DataFrame, stem: Path) -> list[Path]:
    """Draw Recall@20 of new items over that of known ones, a line per model; return the files.

    Args:
        means: a row per point.
        stem: path of the files without their suffix.
    """
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for n, (model,) in enumerate(means.select("model").unique(maintain_order=True).iter_rows()):
            rows = means.filter(pl.col("model") == model).sort("known_recall")
            axes.plot(rows["known_recall"], rows["new_recall"], color=COLORS[n % len(COLORS)], marker="o", label=model)
            for row in rows.iter_rows(named=True):
                at = row["known_recall"], row["new_recall"]
                axes.annotate(row["point"], at, (5, 3), textcoords="offset points", fontsize=7)
        axes.set(xlabel="Recall@20, known items", ylabel="Recall@20, new items")
        figure.legend(loc="outside upper center", ncols=3)
        return write_figure(figure, stem)


if __name__ == "__main__":
    sys.exit(main())
