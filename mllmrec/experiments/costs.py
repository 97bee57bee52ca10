"""Predict the seconds and the memory of each stage of a run from its sizes.

A stage is a sum of terms such as "pairs of items times columns". The seconds per unit were fitted to runs on generated
shops (docs/performance.md) on one core of an AMD EPYC. They are scaled by a product of matrices that is timed here.
Work that runs on all cores is divided by their number. A prediction is meant to be right within a factor of two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from mllmrec_kernels.base.parallel import single_threaded_blas
from mllmrec_kernels.mixed.leading_rows import AXES
from numba import get_num_threads

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.dataset.dataset import SPLITS, Split
from mllmrec.evaluation.evaluate import EXACT_USERS
from mllmrec.foundation import storage
from mllmrec.models.ensemble import RIDGE_STRENGTHS, EnsembleConfig
from mllmrec.models.ensemble_factors import FACTOR_ITERATIONS, FACTOR_STRENGTHS, NARROW, widths_to_try
from mllmrec.models.validation import SAMPLED_USERS
from mllmrec.runs.record import Stage

_MIB = 2**20
_TEXT_WIDTH = 384  # columns of the default encoder
_GEMM_SECONDS = 0.0052  # of the timed product on one core of the reference machine, with other work beside it
_GEMM_ROWS = 640
_BASE_MIB, _FIT_MIB = 280, 420  # of the process with its libraries, and more with compiled kernels of a fit


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers that costs grow with.

    Attributes:
        users, items, interactions: of training.
        shared: sum over users of their items squared, the pairs that share a user.
        additions: sum over users and their items of the items that share a user with the item, estimated as if
            interactions were drawn at random; all neighbors cost so much.
        heldout: users evaluated on validation and on test.
        width: columns of an item vector.
        given: whether the vectors come with the dataset.
        cores: that a stage may use.
    """

    users: int
    items: int
    interactions: int
    shared: float
    additions: float
    heldout: tuple[int, int]
    width: int
    given: bool
    cores: int


@dataclass(frozen=True, slots=True)
class StageCost:
    """The predicted cost of a stage; None if this kind of model or engine has no prediction."""

    stage: Stage
    seconds: float | None
    mib: float | None


def measure_sizes(dataset: Dataset, config: Config) -> Sizes:
    """Return the sizes of a run on a dataset."""
    users, items, split = (dataset.interactions[name].to_numpy() for name in ("user", "item", "split"))
    trained, n_users, n_items = split == SPLITS.index("train"), dataset.n_users, dataset.n_items
    degrees = np.bincount(users[trained], minlength=n_users).astype(np.float64)
    of_items = np.bincount(items[trained], weights=degrees[users[trained]], minlength=n_items)
    counts = np.bincount(items[trained], minlength=n_items)

    def judged(name: Split) -> int:
        held = np.bincount(users[split == SPLITS.index(name)], minlength=n_users)
        return int(np.count_nonzero((held > 0) & (degrees > 0)))

    file = dataset.features.get(config.encode.features)
    return Sizes(
        users=n_users,
        items=n_items,
        interactions=int(counts.sum()),
        shared=float((degrees**2).sum()),
        additions=float((counts * -np.expm1(-of_items / max(1, n_items))).sum() * n_items),
        heldout=(judged("valid"), judged("test")),
        width=_TEXT_WIDTH if file is None else int(storage.read_array(file).shape[1]),
        given=file is not None,
        cores=get_num_threads(),
    )


def machine_speed() -> float:
    """Return how many times as fast as the reference a core of this machine is, by products timed for 50 ms.

    Processor time is counted, so that other work beside it changes little.
    """
    rows = np.random.default_rng(0).standard_normal((_GEMM_ROWS, _GEMM_ROWS)).astype(np.float32)
    seconds = list[float]()
    with single_threaded_blas():
        while sum(seconds) < 0.05 or len(seconds) < 3:
            started = time.process_time()
            rows @ rows
            seconds.append(time.process_time() - started)
    return _GEMM_SECONDS / max(min(seconds), 1e-6)


def predict_costs(sizes: Sizes, config: Config, speed: float = 1.0) -> list[StageCost]:
    """Return the predicted cost of each stage of a run from a prepared dataset.

    Args:
        sizes: of the dataset.
        config: of the run.
        speed: of this machine, 1 for the reference.
    """
    known = isinstance(config.model, EnsembleConfig)
    return [
        StageCost(
            stage,
            _seconds(seconds(sizes, config), sizes.cores, speed) if known or stage not in _OF_MODEL else None,
            (_BASE_MIB + _bytes(sizes, config, stage) / _MIB) if known or stage not in _OF_MODEL else None,
        )
        for stage, seconds in _SECONDS.items()
    ]


Work = tuple[float, float]  # seconds on one core: of work on all cores, and of work on one
_OF_MODEL: tuple[Stage, ...] = ("train", "evaluate", "recommend")


def _seconds(work: Work, cores: int, speed: float) -> float:
    parallel, serial = work
    return (parallel / cores + serial) / speed


def _describe(sizes: Sizes, config: Config) -> Work:
    return 0.0, 0.05 + 1.2e-5 * sizes.items


def _profile(sizes: Sizes, config: Config) -> Work:
    return 0.0, 0.03 + (4e-7 if config.profile.kind == "mean" else 4e-5) * sizes.users


def _encode(sizes: Sizes, config: Config) -> Work:
    if sizes.given:
        return 0.0, 0.05 + 3e-8 * sizes.width * (sizes.items + sizes.users)
    texts = sizes.items + (0 if config.profile.kind == "mean" else sizes.users)
    return 0.02 * texts, 3.0


def _graph(sizes: Sizes, config: Config) -> Work:
    """Return the work of both searches of neighbors, as long as an ensemble reads them, and of the graph's edges."""
    known = isinstance(config.model, EnsembleConfig)
    pairs = (3.2e-9 if known else 0.7e-9) * sizes.items**2 * sizes.width / 384
    return pairs + 2e-8 * sizes.shared, 0.3 + 4e-5 * sizes.items


def _train(sizes: Sizes, config: Config) -> Work:
    model = config.model
    assert isinstance(model, EnsembleConfig)
    judges = min(SAMPLED_USERS, sizes.heldout[0])
    rows, width = sizes.users + sizes.items, _factor_columns(sizes, model) + sizes.width + 1
    widths = widths_to_try(model.factors, sizes.users, sizes.items)
    fits = len(FACTOR_STRENGTHS) * widths
    once = rows * 2.5e-6 + sizes.interactions * 4e-7  # both tables of 64 columns
    factors = FACTOR_ITERATIONS * once * sum((r / 64) ** 1.2 for r in fits)
    k = min(model.cooccurrence_support + model.semantic_support, sizes.items) * 0.85
    products, solves = 4.5e-4 * (k / 200) ** 2, len(RIDGE_STRENGTHS) * 1.8e-4 * (k / 200) ** 3
    ridges = 2 * sizes.items * (products * (1 + sizes.width / 384) / 2 + solves)
    judged = judges * sizes.items * 2e-10 * (7 + sum(fits) / 64) + judges * 2.5e-4
    lists = judges * sizes.items * 1.6e-11 * width + judges * 1e-3
    filters = 1.0 + 4.5e-5 * rows * min(widths[0], NARROW) / 64
    new_items = 4.5e-4 * sizes.items + 4e-4 * judges if model.new_items else 0.0
    written = 4e-5 * sizes.items + 1e-5 * sizes.users
    return factors + ridges + judged + lists + new_items / 2, filters + new_items / 2 + written


def _factor_columns(sizes: Sizes, model: EnsembleConfig) -> int:
    """Return the columns of the factors, taken as wide where that is tried, and of the graph filter."""
    widths = widths_to_try(model.factors, sizes.users, sizes.items)
    return widths[-1] + min(widths[0], NARROW)


def _evaluate(sizes: Sizes, config: Config) -> Work:
    model = config.model
    assert isinstance(model, EnsembleConfig)
    users, width = max(sizes.heldout), _factor_columns(sizes, model) + 2 * sizes.width
    share = 1.0 if users > EXACT_USERS else 4.0  # of what is multiplied
    counted = users * sizes.items * 6.5e-12 * width * share + users * 8e-5
    summed = sizes.additions * 1e-9 + sizes.users * sizes.items * 2.5e-10 + sizes.shared * 9e-8  # by item-kNN
    return counted + users / max(1, sizes.users) * summed, 0.3 + 3e-5 * sum(sizes.heldout)


def _recommend(sizes: Sizes, config: Config) -> Work:
    """Return the work of lists, which bound the scores of all items by their leading axes."""
    model = config.model
    assert isinstance(model, EnsembleConfig)
    axes = min(AXES, _factor_columns(sizes, model) + sizes.width + 1)
    return sizes.users * (sizes.items * 2.2e-11 * axes + 1.2e-4), 0.2 + 1e-6 * config.recommend.top * sizes.users


_SECONDS: Mapping[Stage, Callable[[Sizes, Config], Work]] = {
    "describe": _describe,
    "profile": _profile,
    "encode": _encode,
    "graph": _graph,
    "train": _train,
    "evaluate": _evaluate,
    "recommend": _recommend,
}


def _bytes(sizes: Sizes, config: Config, stage: Stage) -> float:
    """Return the bytes of a stage's arrays at their peak."""
    rows = sizes.users + sizes.items
    vectors, tables = 4.0 * sizes.width * rows, 600.0 * rows + 60.0 * sizes.interactions
    if stage in ("describe", "profile"):
        return tables
    if stage in ("encode", "graph"):
        return tables + vectors
    model = config.model
    assert isinstance(model, EnsembleConfig)
    parts = 4.0 * (_factor_columns(sizes, model) + sizes.width + 1) * rows
    weights = 8.0 * sizes.items * 0.85 * (model.cooccurrence_support + model.semantic_support)
    if stage == "train":
        return _FIT_MIB * _MIB + vectors + 1.5 * parts + 3 * weights + 60.0 * sizes.interactions
    return _FIT_MIB * _MIB + vectors + 2 * parts + 3 * weights + 150.0 * sizes.interactions
