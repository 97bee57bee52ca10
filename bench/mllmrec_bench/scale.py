"""Time and memory of graph construction over a geometric range of sizes: `mllmrec scale`.

Two things are measured, topk_cosine alone and build_graph as a whole (both neighbor searches, the union and
the normalization). Every point goes to the CSV when it is done; a point that stands there already, measured on
this machine with these versions and sources, is not measured again, so an interrupted run goes on.

The exponent b of time = c N^b is the slope of a straight line through (log N, log median seconds), by least
squares: 2 for a method that looks at all pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.config import GraphConfig
from mllmrec.dataset import Histories
from mllmrec.errors import ConfigError
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import build_graph
from mllmrec_bench import embeddings, interactions, peers, results
from mllmrec_bench.bench import OURS, Settings, measure
from mllmrec_bench.datasets import Source, generated_name
from mllmrec_bench.peers import Case
from mllmrec_bench.peers.neighbors import case_name
from mllmrec_bench.results import Result, Stamp
from mllmrec_bench.timing import is_installed

OPS = ("topk_cosine", "build_graph")
_USERS_AN_ITEM, _INTERACTIONS_A_USER = 2, 8  # as in Amazon's 5-cores
_LONG = 10.0  # seconds: what a first call costs besides is lost in it, so the next size needs no run to warm up
_CASE = re.compile(r"^(?P<data>(?:generated|isotropic).*?) N=(?P<n>[\d,]+) d=(?P<d>[\d,]+) (?P<settings>.*)$")


@dataclass(frozen=True, slots=True)
class Range:
    """The sizes and settings of a sweep.

    Attributes:
        smallest, largest: rows N; the sizes between are `factor` apart.
        factor: above 1.
        widths: dimensions d, at most the source's.
        settings: k, threshold (None at -1 or below), rounds, threads.
        compare: whether topk_cosine's peers are measured as well.
        isotropic: rows without structure, instead of rows like the source's.
        seed: of what is generated.
    """

    smallest: int = 2_000
    largest: int = 32_000
    factor: float = 2.0
    widths: tuple[int, ...] = (384,)
    settings: Settings = field(default_factory=Settings)
    compare: bool = False
    isotropic: bool = False
    seed: int = 0

    def sizes(self) -> tuple[int, ...]:
        """Return N from the smallest to the largest.

        Raises:
            ConfigError: the range is empty or does not grow.
        """
        if not 50 <= self.smallest <= self.largest or self.factor <= 1:
            raise ConfigError(
                f"a range needs 50 <= smallest <= largest and factor > 1; "
                f"got {self.smallest}, {self.largest}, {self.factor}"
            )
        steps = int(np.log(self.largest / self.smallest) / np.log(self.factor) + 1e-9)
        return tuple(round(self.smallest * self.factor**step) for step in range(steps + 1))


@dataclass(frozen=True, slots=True)
class Fit:
    """time = seconds_at_one * N ** exponent, and the N it was fitted on."""

    exponent: float
    seconds_at_one: float
    sizes: tuple[int, ...]


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> Fit | None:
    """Fit a power law; None for fewer than two different sizes."""
    if len(set(sizes)) < 2:
        return None
    slope, offset = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(seconds, float)), 1)
    return Fit(float(slope), float(np.exp(offset)), tuple(sorted(sizes)))


@dataclass(frozen=True, slots=True)
class Curve:
    """The constants of a scaling curve: op, backend, dimensions, data, settings."""

    op: str
    backend: str
    d: int
    data: str
    settings: str

    @property
    def method(self) -> str:
        """Return the name of the op, followed by the library if it is a peer."""
        return self.op if self.backend == OURS else f"{self.op}, {self.backend}"

    @property
    def name(self) -> str:
        """Return a label with method, data and settings."""
        return f"{self.method}, {self.data}, d={self.d} {self.settings}"


@dataclass(frozen=True, slots=True)
class Point:
    """One measured size N and its line of the CSV."""

    n: int
    result: Result


def curves(lines: Iterable[Result], metric: str) -> dict[Curve, list[Point]]:
    """Return points of one metric by curve, each rising in N; of points measured more than once, the last."""
    by_curve: dict[Curve, dict[int, Point]] = {}
    for line in lines:
        case = _CASE.match(line.case)
        if case and line.op in OPS and line.metric == metric:
            n, d = (int(case[name].replace(",", "")) for name in ("n", "d"))
            curve = Curve(line.op, line.backend, d, case["data"], case["settings"])
            by_curve.setdefault(curve, {})[n] = Point(n, line)
    return {curve: [points[n] for n in sorted(points)] for curve, points in by_curve.items()}


def fits(lines: Iterable[Result]) -> dict[Curve, Fit]:
    """Return the fitted power law of every curve with at least two sizes."""
    fitted = {
        curve: fit([point.n for point in points], [point.result.median for point in points])
        for curve, points in curves(lines, "seconds").items()
    }
    return {curve: law for curve, law in fitted.items() if law}


def as_json(lines: Sequence[Result]) -> dict[str, Any]:
    """Return lines and their fits as JSON-like values."""
    return {"results": results.as_json(lines), "fits": {curve.name: asdict(law) for curve, law in fits(lines).items()}}


def sweep(plan: Range, like: Source, path: Path, progress: Progress = silent) -> Iterator[tuple[list[Result], bool]]:
    """Measure the range point by point, smallest first.

    Args:
        plan: sizes and settings.
        like: the rows that the generated ones are like; read where they are needed.
        path: the CSV; grows by each point.
        progress: told after each round.

    Yields:
        A point's lines, and whether they were there already.

    Raises:
        ConfigError: the range is empty.
        InputError: the CSV is another kind of file, or d is beyond the source's.
    """
    stamp = Stamp.now(plan.settings.threads)
    known = results.read(path) if path.exists() and path.stat().st_size else []
    sizes = plan.sizes()
    for d in plan.widths:
        seconds = dict.fromkeys(OPS, 0.0)  # at the size before, in this process
        for n in sizes:
            name = case_name(_data(plan, like), n, d, plan.settings.k, _threshold(plan))
            rows: Vectors | None = None
            for op, make in (("topk_cosine", _neighbors), ("build_graph", _graph)):
                before = _before(known, op, name, plan, stamp)
                if before:
                    yield before, True
                    continue
                rows = _vectors(n, d, plan, like) if rows is None else rows
                case = replace(make(rows, plan), name=name)
                lines = measure(case, plan.settings, progress, warm_up=seconds[op] < _LONG).results(stamp)
                seconds[op] = _longest(lines)
                results.append(path, lines)
                yield lines, False


def _before(known: Sequence[Result], op: str, case: str, plan: Range, stamp: Stamp) -> list[Result]:
    """Return the lines of a point that was measured before in the same way; none if a method is missing."""
    key = (op, case, stamp)
    lines = [x for x in known if (x.op, x.case, Stamp(x.machine, x.versions, x.commit)) == key]
    timed = {line.backend for line in lines if line.metric == "seconds"}
    return results.newest(lines) if {OURS, *_peer_names(op, plan)} <= timed else []


def _longest(lines: Iterable[Result]) -> float:
    return max(line.median for line in lines if line.metric == "seconds")


def _peer_names(op: str, plan: Range) -> list[str]:
    if op != "topk_cosine":
        return []
    return [peer.name for peer in _neighbors(np.ones((1, 1), np.float32), plan).peers if is_installed(peer.module)]


def _vectors(n: int, d: int, plan: Range, like: Source) -> Vectors:
    if plan.isotropic:
        return embeddings.isotropic(n, d, seed=plan.seed)
    return embeddings.enlarge(embeddings.narrowed(like.rows(), d), n, seed=plan.seed)


def _data(plan: Range, like: Source) -> str:
    return "isotropic" if plan.isotropic else generated_name(like.name, plan.seed)


def _threshold(plan: Range) -> float | None:
    return plan.settings.threshold if plan.settings.threshold > -1 else None


def _neighbors(vectors: Vectors, plan: Range) -> Case:
    case = peers.topk_cosine(vectors, plan.settings.k, _threshold(plan), data="")
    return case if plan.compare else replace(case, peers=())


def _graph(vectors: Vectors, plan: Range) -> Case:
    n = len(vectors)
    users = _USERS_AN_ITEM * n
    matrix = interactions.interactions(users, n, _INTERACTIONS_A_USER * users, seed=plan.seed)
    histories = Histories(matrix.indptr, matrix.indices, None, n, "train")
    settings = plan.settings
    config = GraphConfig(semantic_neighbors=settings.k, threshold=max(-1.0, settings.threshold), device="cpu")

    def run() -> tuple[Any, ...]:
        graph = build_graph(vectors, histories, config)
        return graph.adjacency, graph.normalized.values()

    return Case("build_graph", "", run, ())
