"""`mllmrec bench`: each op on some data, beside its peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.ridge import ridge_support
from mllmrec_bench import peers
from mllmrec_bench.datasets import BenchData, normalized, sampled_users
from mllmrec_bench.embeddings import data_profile
from mllmrec_bench.peers import Case, Peer
from mllmrec_bench.results import Result, Stamp, append
from mllmrec_bench.timing import Method, Quantiles, Race, Timed, is_installed, threads

OURS = "mllmrec"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the ops and of their timing.

    Attributes:
        k: neighbors per row; for ridge_weights as many by shared users and by vectors each.
        threshold: of the second case of topk_cosine.
        length: of recommended lists.
        rounds: timed runs of every method.
        threads: of every pool.
        budget: seconds after which a case begins no new round.
    """

    k: int = 10
    threshold: float = 0.7
    length: int = 50
    rounds: int = 5
    threads: int = 1
    budget: float = math.inf


@dataclass(frozen=True, slots=True)
class Op:
    """A verb of mllmrec_kernels, the file that tests it, and the cases it is measured on."""

    name: str
    tests: str
    cases: Callable[[BenchData, Settings], Sequence[Case]]


def _topk_cosine(data: BenchData, settings: Settings) -> list[Case]:
    about = data_profile(data.vectors).summary
    cases = [peers.topk_cosine(data.vectors, settings.k, cut, data=data.name) for cut in (None, settings.threshold)]
    return [replace(case, about=about) for case in cases]


def _topk_dot(data: BenchData, settings: Settings) -> list[Case]:
    users, items = data.towers
    exclude, _ = data.split
    return [peers.topk_dot(users, items, exclude, settings.length, threads=settings.threads, data=data.name)]


def _cooccurrence_topk(data: BenchData, settings: Settings) -> list[Case]:
    matrix = data.user_items
    return [peers.cooccurrence_topk(matrix, settings.k, threads=settings.threads, data=data.name)]


def _propagate(data: BenchData, settings: Settings) -> list[Case]:
    scaled, features = normalized(data), data.vectors
    return [
        peers.one_layer(scaled, features, data=data.name),
        peers.propagate(data.graph, features, data=data.name),
        peers.with_gradient(scaled, features, data=data.name),
    ]


def _rank_heldout(data: BenchData, settings: Settings) -> list[Case]:
    users, items = data.towers
    exclude, heldout = data.split
    length = settings.length
    return [peers.rank_heldout(users, items, exclude, heldout, length, threads=settings.threads, data=data.name)]


def _sample_negatives(data: BenchData, settings: Settings) -> list[Case]:
    return [peers.sample_negatives(data.user_items, sampled_users(data), data=data.name)]


def _ridge_weights(data: BenchData, settings: Settings) -> list[Case]:
    vectors, user_items = data.vectors, data.user_items
    support = ridge_support(vectors, user_items, settings.k, settings.k)
    return [peers.ridge_weights(user_items, vectors, support, data=data.name)]


OPS = (
    Op("topk_cosine", "test_topk.py", _topk_cosine),
    Op("topk_dot", "test_topk.py", _topk_dot),
    Op("cooccurrence_topk", "test_cooccurrence.py", _cooccurrence_topk),
    Op("propagate", "test_propagate.py", _propagate),
    Op("rank_heldout", "test_rank.py", _rank_heldout),
    Op("sample_negatives", "test_sample.py", _sample_negatives),
    Op("ridge_weights", "test_ridge.py", _ridge_weights),
)


def find_ops(name: str | None) -> tuple[Op, ...]:
    """Return the op of that name, or all.

    Raises:
        ConfigError: there is no such op.
    """
    if name is None:
        return OPS
    known = [op.name for op in OPS]
    if name not in known:
        raise ConfigError(f"there is no op {name!r}{near_miss(name, known)}; there are {', '.join(known)}")
    return (OPS[known.index(name)],)


@dataclass(frozen=True, slots=True)
class Measured:
    """A case with its times.

    Attributes:
        case: the measured one.
        ours: mllmrec's times.
        others: the peers' times, in the case's order.
        absent: peers that are not installed.
    """

    case: Case
    ours: Timed
    others: tuple[Timed, ...]
    absent: tuple[Peer, ...]

    @property
    def strongest(self) -> Timed | None:
        """Return the peer with the lowest median; None if none is installed."""
        return min(self.others, key=lambda timed: Quantiles.of(timed.seconds).median, default=None)

    def differs(self, name: str) -> str:
        """Return the difference of a peer's result; empty if it is the same."""
        return next((peer.differs for peer in self.case.peers if peer.name == name), "")

    def results(self, stamp: Stamp) -> list[Result]:
        """Return the lines of the CSV."""
        lines = []
        for timed in (self.ours, *self.others):
            lines.append(self._line(timed, "seconds", Quantiles.of(timed.seconds), stamp))
            if timed.extra_bytes is not None:
                extra = timed.extra_bytes / _MIB
                lines.append(self._line(timed, "extra MiB", Quantiles(extra, extra, extra), stamp))
        lines += [self._line(timed, "times mllmrec", timed.slower_than(self.ours), stamp) for timed in self.others]
        return lines

    def _line(self, timed: Timed, metric: str, value: Quantiles, stamp: Stamp) -> Result:
        rounds = len(timed.seconds) if metric != "extra MiB" else 1
        return Result(
            self.case.op, timed.name, self.case.name, metric, value.median, value.p20, value.p80, rounds,
            stamp.machine, stamp.versions, stamp.commit,
        )  # fmt: skip


def methods(case: Case) -> tuple[list[Method], tuple[Peer, ...]]:
    """Return mllmrec and the installed peers, ready to run, and the peers that are not installed."""
    absent = tuple(peer for peer in case.peers if not is_installed(peer.module))
    present = [Method(peer.name, peer.prepare()) for peer in case.peers if peer not in absent]
    return [Method(OURS, case.run), *present], absent


def measured(case: Case, timed: Sequence[Timed], absent: tuple[Peer, ...]) -> Measured:
    """Return the times of `methods`, in order.

    Args:
        case: the measured one.
        timed: times of mllmrec, then of the peers.
        absent: peers that are not installed.
    """
    return Measured(case, timed[0], tuple(timed[1:]), absent)


def measure(case: Case, settings: Settings, progress: Progress = silent, *, warm_up: bool = True) -> Measured:
    """Time a case: all methods in turn, in this process, with one number of threads.

    Args:
        case: to time.
        settings: rounds, threads, budget.
        progress: told after each round.
        warm_up: run every method once before; without it the first call is timed, too: for a case that takes long,
            of code that has run before.

    Raises:
        ConfigError: the rounds or the threads are out of range.
    """
    if settings.rounds < 1:
        raise ConfigError(f"rounds must be at least 1; got {settings.rounds}")
    runners, absent = methods(case)
    with threads(settings.threads):
        race = Race(runners, progress, f"{case.op}: {case.name}")
        timed = race.rounds(settings.rounds, budget=settings.budget, warm_up=warm_up)
    return measured(case, timed, absent)


def measure_ops(
    ops: Sequence[Op], data: BenchData, settings: Settings, csv: Path | None = None, progress: Progress = silent
) -> Iterator[tuple[Measured, list[Result]]]:
    """Time every case of some ops.

    Args:
        ops: to time.
        data: to time them on.
        settings: of ops and timing.
        csv: grows by the lines of each case; None for none.
        progress: told after each round.

    Yields:
        A case with its times, and the lines of the CSV.
    """
    stamp = Stamp.now(settings.threads)
    for op in ops:
        for case in op.cases(data, settings):
            done = measure(case, settings, progress)
            lines = done.results(stamp)
            if csv:
                append(csv, lines)
            yield done, lines
