"""`mllmrec bench`: each op on some material, beside its peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mllmrec.config import ModelConfig
from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.item_weights import ridge_support
from mllmrec_bench import peers
from mllmrec_bench.embeddings import likeness
from mllmrec_bench.material import Material, normalised, sampled_users
from mllmrec_bench.peers import Case, Peer
from mllmrec_bench.results import Result, Stamp
from mllmrec_bench.timing import Method, Quantiles, Race, Timed, is_installed, threads

OURS = "mllmrec"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """How the ops are asked and timed.

    Attributes:
        k: neighbours a row; for ridge_weights so many by shared users and so many by vectors.
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
    cases: Callable[[Material, Settings], Sequence[Case]]


def _topk_cosine(material: Material, settings: Settings) -> list[Case]:
    about = likeness(material.vectors).summary
    cases = [
        peers.topk_cosine(material.vectors, settings.k, cut, data=material.name) for cut in (None, settings.threshold)
    ]
    return [replace(case, about=about) for case in cases]


def _topk_dot(material: Material, settings: Settings) -> list[Case]:
    users, items = material.towers
    exclude, _ = material.split
    asked = {"threads": settings.threads, "data": material.name}
    return [peers.topk_dot(users, items, exclude, settings.length, **asked)]  # type: ignore[arg-type]


def _cooccurrence_topk(material: Material, settings: Settings) -> list[Case]:
    matrix = material.user_items
    return [peers.cooccurrence_topk(matrix, settings.k, threads=settings.threads, data=material.name)]


def _propagate(material: Material, settings: Settings) -> list[Case]:
    scaled, features = normalised(material), material.vectors
    return [
        peers.one_layer(scaled, features, data=material.name),
        peers.propagate(material.graph, features, data=material.name),
        peers.with_gradient(scaled, features, data=material.name),
    ]


def _rank_heldout(material: Material, settings: Settings) -> list[Case]:
    asked = {"threads": settings.threads, "data": material.name}
    return [peers.rank_heldout(*material.towers, *material.split, settings.length, **asked)]  # type: ignore[arg-type]


def _sample_negatives(material: Material, settings: Settings) -> list[Case]:
    return [peers.sample_negatives(material.user_items, sampled_users(material), data=material.name)]


def _ridge_weights(material: Material, settings: Settings) -> list[Case]:
    vectors, user_items = material.vectors, material.user_items
    asked = ModelConfig(cooccurrence_support=settings.k, semantic_support=settings.k)
    return [peers.ridge_weights(user_items, vectors, ridge_support(vectors, user_items, asked), data=material.name)]


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
    """The op of that name, or all.

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
        case: what was measured.
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
        """The peer with the lowest median; None where none is installed."""
        return min(self.others, key=lambda timed: Quantiles.of(timed.seconds).median, default=None)

    def differs(self, name: str) -> str:
        """How a peer's result is not the same; empty where it is."""
        return next((peer.differs for peer in self.case.peers if peer.name == name), "")

    def results(self, stamp: Stamp) -> list[Result]:
        """The lines of the CSV."""
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
    """mllmrec and the installed peers, ready to run, and the peers that are not installed."""
    absent = tuple(peer for peer in case.peers if not is_installed(peer.module))
    present = [Method(peer.name, peer.prepare()) for peer in case.peers if peer not in absent]
    return [Method(OURS, case.run), *present], absent


def measured(case: Case, timed: Sequence[Timed], absent: tuple[Peer, ...]) -> Measured:
    """The times of `methods`, put in order."""
    return Measured(case, timed[0], tuple(timed[1:]), absent)


def measure(case: Case, settings: Settings, progress: Progress = silent, *, warm_up: bool = True) -> Measured:
    """Time a case: all methods in turn, in this process, with one number of threads.

    Without `warm_up` the first call is timed, too: for a case that takes long, of code that has run before.

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
