"""Each kernel, and an epoch of training, on a CUDA device beside the peer a user would else pick: `make bench-gpu`.

Times are medians of RUNS calls after a warm-up, by CUDA events, or by the host's clock where a call ends on the host;
methods in turn, in one process. Work is what the method has to do, so that a rate compares with the device's own, which
is measured first: 2 N^2 d for products, gathered bytes for propagation. propagate, cooccurrence_topk, ridge_weights and
the mixed verbs are held to their peer before they are timed; what the others' peers give is not the same to the bit
(pytest -m gpu). Each line is also appended to bench/results-gpu.csv, with the columns of bench/results.csv.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numba
import numpy as np
import torch
from mllmrec_bench.results import Result, Stamp, append
from mllmrec_bench.timing import Quantiles
from mllmrec_kernels import (
    CSR,
    MixedItems,
    MixedScores,
    available,
    cooccurrence_topk,
    propagate,
    rank_heldout,
    rank_mixed,
    ridge_weights,
    score_mixed,
    topk_cosine,
    topk_mixed,
)

from bench.bench_training import BATCH, DIM, Data, PaperLikeLoop
from bench.gpu_inputs import embeddings, interactions, mixed_problem, random_graph
from mllmrec.config import TrainConfig

RUNS, K, WIDTH = 5, 10, 384
CSV = Path(__file__).resolve().parent / "results-gpu.csv"
Call = Callable[[], object]


def device_ms(call: Call, runs: int = RUNS) -> list[float]:
    """Milliseconds of calls that start on the host and end on the device."""
    call()
    times = []
    for _ in range(runs):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return times


def wall_ms(call: Call, runs: int = RUNS) -> list[float]:
    """Milliseconds of calls that start and end on the host."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def compare(
    op: str,
    size: str,
    methods: dict[str, Call],
    work: float = 0,
    unit: str = "",
    timed: Callable[[Call], list[float]] = device_ms,
) -> None:
    """A line for each method, mllmrec's first: milliseconds, rate, and how many times mllmrec's time it takes."""
    first = 0.0
    for name, call in methods.items():
        times = timed(call)
        seconds = Quantiles.of([ms / 1e3 for ms in times])
        ms = 1e3 * seconds.median
        first = first or ms
        rate = f"{work / ms / 1e9:8.2f} {unit}" if unit else ""
        print(f"{op:18} {size:26} {name:36} {ms:10.2f} ms {ms / first:8.2f} x {rate}", flush=True)
        numbers = seconds.median, seconds.p20, seconds.p80, len(times)
        here = Stamp.now(numba.get_num_threads())
        here = replace(here, machine=f"{torch.cuda.get_device_name()}; {here.machine}")
        append(CSV, [Result(op, name, size, "seconds", *numbers, here.machine, here.versions, here.commit)])


def ceilings() -> None:
    """What a copy and a product of this device reach."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8).random_()
    copy = torch.empty_like(source)
    compare("ceiling", "8192^3", {"bfloat16 product": lambda: a @ a}, 2.0 * 8192**3, "TFLOP/s")
    compare("ceiling", "1 GiB", {"copy, read and written": lambda: copy.copy_(source)}, 2.0**31, "TB/s")


def chunked_topk(x: torch.Tensor, dtype: torch.dtype, rows: int = 4096) -> torch.Tensor:
    """The stock way: a chunk of the similarity matrix, its top-k."""
    y = x.to(dtype)
    return torch.cat([(part @ y.T).topk(K + 1, dim=1).indices for part in y.split(rows)])


def bench_topk(n: int) -> None:
    """topk_cosine of n rows, with and without a threshold, beside torch by chunks where that takes seconds at most."""
    x = embeddings(n, WIDTH)
    methods: dict[str, Call] = {
        "triton": lambda: topk_cosine(x, K),
        "triton, threshold 0.7": lambda: topk_cosine(x, K, threshold=0.7),
    }
    if n <= 200_000:
        methods |= {
            "torch chunks, float32": lambda: chunked_topk(x, torch.float32),
            "torch chunks, bfloat16: not exact": lambda: chunked_topk(x, torch.bfloat16),
        }
    compare("topk_cosine", f"{n:,} x {WIDTH}, k={K}", methods, 2.0 * n * n * WIDTH, "TFLOP/s")


def bench_propagate(n: int) -> None:
    """Two layers of propagate beside torch's CSR product, held to it first."""
    from mllmrec_kernels.propagate import torch_op

    graph, x = random_graph(n, 20), embeddings(n, WIDTH)
    made, stock = propagate(graph, x, layers=2), propagate(graph, x, layers=2, backend="torch")
    torch.testing.assert_close(made, stock, rtol=1e-4, atol=1e-5)
    matrix = torch_op.as_torch_csr(graph, x)
    methods: dict[str, Call] = {
        "triton": lambda: propagate(graph, x, layers=2),
        "torch CSR (cuSPARSE)": lambda: torch_op.by_torch(matrix, x, 2, "sum"),
    }
    compare("propagate", f"{n:,} x {WIDTH}, 2 layers", methods, 4.0 * graph.nnz * WIDTH * 2, "TB/s gathered")


def on_threads(threads: int, call: Call) -> Call:
    """The call with so many of Numba's threads."""

    def run() -> None:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        call()
        numba.set_num_threads(before)

    return run


def bench_cooccurrence(user_items: CSR) -> None:
    """cooccurrence_topk by CuPy, copies to and from the device included, beside Numba on the host, held to it first."""
    made, wanted = (cooccurrence_topk(user_items, K, backend=name, max_bytes=2**30) for name in ("cupy", "numba"))
    assert all((mine == theirs).all() for mine, theirs in zip(made, wanted, strict=True))
    on_host: Call = lambda: cooccurrence_topk(user_items, K, backend="numba")  # noqa: E731
    methods: dict[str, Call] = {
        "cupy": lambda: cooccurrence_topk(user_items, K, backend="cupy"),
        "numba, 2 threads": on_threads(2, on_host),
        f"numba, {numba.get_num_threads()} threads": on_host,
    }
    users, items = user_items.shape
    compare("cooccurrence_topk", f"{users:,} x {items:,}", methods, timed=wall_ms)


def bench_rank(seen: CSR, d: int = 64) -> None:
    """rank_heldout beside torch: a product, a mask and a top-50 for each chunk of users."""
    users, items = seen.shape
    drawn = np.random.default_rng(2).integers(0, items, users)
    free = np.asarray(seen.to_scipy()[np.arange(users), drawn]).ravel() == 0
    heldout = CSR.from_pairs(np.flatnonzero(free), drawn[free], (users, items))
    x, y = torch.randn(users, d, device="cuda"), torch.randn(items, d, device="cuda")
    rows, columns = torch.from_numpy(seen.rows()).cuda(), torch.from_numpy(seen.indices).long().cuda()

    def stock() -> None:
        for start in range(0, users, 4096):
            scores = x[start : start + 4096] @ y.T
            own = slice(int(seen.indptr[start]), int(seen.indptr[min(start + 4096, users)]))
            scores[rows[own] - start, columns[own]] = -torch.inf
            scores.topk(50)

    methods: dict[str, Call] = {
        "triton": lambda: rank_heldout(x, y, seen, heldout),
        "torch chunks: product, mask, top-50": stock,
    }
    compare("rank_heldout", f"{users:,} x {items:,} x {d}", methods, 2.0 * users * items * d, "TFLOP/s")


def bench_ridge(items: int = 100_000, neighbors: int = 60) -> None:
    """ridge_weights by torch on the device, copies included, beside Numba on the host, held to it first."""
    user_items, x = interactions(2 * items, items, 10), embeddings(items, WIDTH)
    near = topk_cosine(x, neighbors)[0].cpu().numpy()
    support = CSR.from_pairs(np.repeat(np.arange(items), neighbors), near.ravel(), (items, items))

    def solve(name: str) -> CSR:
        return ridge_weights(user_items, x, support, content_weight=20, regularization=50, backend=name)

    np.testing.assert_allclose(solve("torch").data, solve("numba").data, rtol=2**-23, atol=1e-9)
    methods: dict[str, Call] = {
        "torch": lambda: solve("torch"),
        f"numba, {numba.get_num_threads()} threads": lambda: solve("numba"),
    }
    work = 2.0 * items * (neighbors + 1) ** 2 * WIDTH
    compare("ridge_weights", f"{items:,} x {neighbors}", methods, work, "TFLOP/s", partial(wall_ms, runs=3))


def bench_mixed(users: int = 4_096, items: int = 100_000, neighbors: int = 200, width: int = 200) -> None:
    """rank_mixed, topk_mixed and score_mixed of a block of users beside Numba on the host, held to it first.

    Without MixedItems, items are checked in each call, and their weights copied to the device.
    """
    scores, have, heldout = mixed_problem(users, items, neighbors, width)
    x, y = scores.user_vectors, scores.item_vectors
    assert isinstance(x, torch.Tensor)
    assert isinstance(y, torch.Tensor)
    on_host = replace(scores, user_vectors=x.cpu().numpy(), item_vectors=y.cpu().numpy())
    verbs: dict[str, Callable[[MixedScores], object]] = {
        "rank_mixed": lambda given: rank_mixed(given, have, heldout),
        "topk_mixed": lambda given: topk_mixed(given, 20, exclude=have)[0],
        "score_mixed": lambda given: score_mixed(given, heldout),
    }
    kept = replace(scores, item_weights=MixedItems(scores.item_weights, y), item_vectors=None)
    for op, verb in verbs.items():
        torch.testing.assert_close(verb(scores), torch.as_tensor(verb(on_host)).cuda(), rtol=0, atol=0)
        methods: dict[str, Call] = {
            "triton, MixedItems": partial(verb, kept),
            "triton": partial(verb, scores),
            f"numba, {numba.get_num_threads()} threads": partial(verb, on_host),
        }
        compare(op, f"{users:,} x {items:,}", methods, timed=partial(device_ms, runs=3))


def bench_training() -> None:
    """An epoch and its validation beside the loop of bench_training.py, both on the device."""
    data, epochs = Data(lambda n: n), count(1)
    config = TrainConfig(dim=DIM, batch_size=BATCH, device="cuda")
    trainer = data.trainer(config)
    loop, by_sets = PaperLikeLoop(data, np.array, "cuda"), PaperLikeLoop(data, set, "cuda")
    users, items = data.train.shape
    methods: dict[str, Call] = {
        "mllmrec": lambda: trainer.run_epoch(next(epochs)),
        "loop like the paper's": loop.epoch,
        "the same, hits by set": by_sets.epoch,
    }
    trainer.run_epoch(next(epochs))  # which records the steps
    compare("train", f"{users:,} x {items:,}", methods, timed=partial(wall_ms, runs=3))


def main() -> int:
    """Read the command line, time what can run here; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[20_000, 200_000, 1_000_000], help="sizes of topk_cosine"
    )
    sizes = parser.parse_args().rows
    if not torch.cuda.is_available():
        print("bench-gpu: no CUDA device is visible; nothing was timed")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, medians of {RUNS}; 3 where hosts work")
    ceilings()
    for n in sizes:
        bench_topk(n)
    for n in (50_000, 500_000):
        bench_propagate(n)
    seen = interactions(200_000, 50_000, 20)
    bench_rank(seen)
    if available()["cupy"]:
        bench_cooccurrence(seen)
    else:
        print("cooccurrence_topk: cupy has no device; pip install 'mllmrec[cuda]'")
    bench_training()
    bench_ridge()
    bench_mixed()
    return 0


if __name__ == "__main__":
    sys.exit(main())
