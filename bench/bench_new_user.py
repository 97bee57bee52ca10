"""Time the list of one new user from a loaded ensemble, beside the same list by topk_mixed.

    python -m bench.bench_new_user --items 100000
    python -m bench.bench_new_user --run run

Without a run the model is drawn at the sizes of a fitted one: 200 weights per item, 64 factors, a filter of 64, item
vectors of 384 numbers near the centers of clusters. With a run, its model lists for the histories of its users, as if
they were new. The time of a list depends on how many items a bound settles, so only a run tells it for a shop.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from mllmrec_bench.timing import Quantiles
from mllmrec_kernels import CSR

from mllmrec.models import Ensemble
from mllmrec.models.scoring import VectorScorer
from mllmrec.runs import Run

_USERS = 2_000  # of the fit; a new user's list reads none of them
_WEIGHTS, _FACTORS, _WIDTH, _HISTORY = 200, 64, 384, 20
_CLUSTER = 200  # items


def loaded_model(n_items: int, seed: int = 0) -> Ensemble:
    """Return an ensemble of drawn arrays, as one is after it was read."""
    draw = np.random.default_rng(seed)
    cluster = draw.integers(0, max(1, n_items // _CLUSTER), n_items)
    centers = draw.standard_normal((cluster.max() + 1, _WIDTH)) / _WIDTH**0.5
    vectors = centers[cluster] + draw.standard_normal((n_items, _WIDTH)) / _WIDTH**0.5
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    near = draw.integers(0, n_items, (n_items, _WEIGHTS))
    pattern = CSR.from_pairs(np.repeat(np.arange(n_items), _WEIGHTS), near.ravel(), (n_items, n_items))
    weights = CSR(pattern.indptr, pattern.indices, draw.exponential(0.05, pattern.nnz).astype(np.float32), n_items)
    known = CSR.from_scipy(sp.random_array((_USERS, n_items), density=_HISTORY / n_items, rng=draw), binary=True)
    factors, filtered = (draw.standard_normal((n_items, _FACTORS)).astype(np.float32) for _ in range(2))
    counts = np.log1p(np.bincount(known.indices, minlength=n_items)).astype(np.float32)[:, None]
    items = np.concatenate([0.1 * factors, 0.1 * filtered, vectors, counts], axis=1)
    model = Ensemble()
    model.weights = {"ridge": 1.0, "factors": 0.4, "graph filter": 0.4, "content": 0.4, "popularity": 0.1}
    model.widths = {"factors": _FACTORS, "graph filter": _FACTORS, "content": _WIDTH, "popularity": 1}
    model.factor_settings = 1e-5, 0.02
    model.rest = VectorScorer(np.zeros((_USERS, items.shape[1]), np.float32), items)
    model.ridge = model._empty_ridge().set_weights(known, weights)
    model.user_items = known
    return model


def timed(work: Callable[[], object], rounds: int) -> Quantiles:
    """Return the seconds of a call, after one to warm up."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return Quantiles.of(seconds)


def time_run(folder: str, rounds: int) -> int:
    """Print the milliseconds of a list by a run's model, over histories drawn from its users."""
    model = Run(Path(folder)).fitted
    if not isinstance(model, Ensemble):
        print(f"new user: {folder} is a run of {model.title}; name one of the ensemble", file=sys.stderr)
        return 1
    drawn = np.random.default_rng(1).choice(model.user_items.n_rows, rounds, replace=False)
    histories = [model.user_items.take_rows(drawn[n : n + 1]) for n in range(rounds)]
    waiting = iter([histories[0], *histories])
    ms = timed(lambda: model.recommend(next(waiting), 20), rounds)
    print(f"{model.user_items.n_columns:,} items: {1e3 * ms.median:.2f} ms ({1e3 * ms.p20:.2f} to {1e3 * ms.p80:.2f})")
    return 0


def main() -> int:
    """Print the milliseconds of a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--run", help="a finished run of the ensemble")
    options = parser.parse_args()
    if options.run:
        return time_run(options.run, options.rounds)
    model, draw = loaded_model(options.items), np.random.default_rng(1)
    items = np.sort(draw.choice(options.items, _HISTORY, replace=False))
    history = CSR.from_pairs(np.zeros(_HISTORY, np.int64), items, (1, options.items))
    start = time.perf_counter()
    ids, _ = model.recommend(history, 20)
    print(f"first list, items encoded: {time.perf_counter() - start:.2f} s")
    rounds = {
        "model.recommend(history, 20)": timed(lambda: model.recommend(history, 20), options.rounds),
        "the same by topk_mixed": timed(lambda: model.fold_in(history).top(np.arange(1), 20, history), 5),
    }
    for name, ms in rounds.items():
        print(f"{name}: {1e3 * ms.median:.2f} ms ({1e3 * ms.p20:.2f} to {1e3 * ms.p80:.2f})")
    same = np.array_equal(ids, model.fold_in(history).top(np.arange(1), 20, history)[0])
    print(f"{options.items:,} items, the same list: {same}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
