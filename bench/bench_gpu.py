"""Each kernel, and an epoch of training, on a CUDA device beside the peer a user would else pick: `make bench-gpu`.

Times are medians of RUNS calls after a warm-up, by CUDA events, or by the host's clock where a call ends on the host;
methods in turn, in one process. Work is what the method has to do, so that a rate compares with the device's own, which
is measured first: 2 N^2 d for products, gathered bytes for propagation. propagate, cooccurrence_topk and ridge_weights
are held to their peer before they are timed; what the others' peers give is not the same to the bit (pytest -m gpu).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import count

import numba
import numpy as np
import torch
from mllmrec_kernels import CSR, available, cooccurrence_topk, propagate, rank_heldout, ridge_weights, topk_cosine

from bench.bench_training import BATCH, DIM, Data, PaperLikeLoop
from mllmrec.config import TrainConfig

RUNS, K, WIDTH = 5, 10, 384
Call = Callable[[], object]


def median_ms(call: Call) -> float:
    """Median milliseconds of a call on the device."""
    call()
    times = []
    for _ in range(RUNS):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def wall_ms(call: Call, runs: int = RUNS) -> float:
    """Median milliseconds of a call that starts and ends on the host."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def compare(
    op: str,
    size: str,
    methods: dict[str, Call],
    work: float = 0,
    unit: str = "",
    timed: Callable[[Call], float] = median_ms,
) -> None:
    """A line for each method, mllmrec's first: milliseconds, rate, and how many times mllmrec's time it takes."""
    first = 0.0
    for name, call in methods.items():
        ms = timed(call)
        first = first or ms
        rate = f"{work / ms / 1e9:8.2f} {unit}" if unit else ""
        print(f"{op:18} {size:26} {name:36} {ms:10.2f} ms {ms / first:8.2f} x {rate}", flush=True)


def ceilings() -> None:
    """What a copy and a product of this device reach."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8).random_()
    copy = torch.empty_like(source)
    compare("ceiling", "8192^3", {"bfloat16 product": lambda: a @ a}, 2.0 * 8192**3, "TFLOP/s")
    compare("ceiling", "1 GiB", {"copy, read and written": lambda: copy.copy_(source)}, 2.0**31, "TB/s")


def embeddings(n: int, d: int = WIDTH) -> torch.Tensor:
    """Unit rows in clusters with a falling spectrum, float32 [n, d] on the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    centres = torch.randn(max(1, n // 25), d, device="cuda", generator=generator)
    which = torch.randint(len(centres), (n,), device="cuda", generator=generator)
    rows = centres[which].add_(torch.randn(n, d, device="cuda", generator=generator), alpha=0.7)
    rows *= (1 + torch.arange(d, device="cuda")).rsqrt()
    return torch.nn.functional.normalize(rows, dim=1)


def chunked_topk(x: torch.Tensor, dtype: torch.dtype, rows: int = 4096) -> torch.Tensor:
    """The stock way: a chunk of the similarity matrix, its top-k."""
    y = x.to(dtype)
    return torch.cat([(part @ y.T).topk(K + 1, dim=1).indices for part in y.split(rows)])


def bench_topk(n: int) -> None:
    """topk_cosine of n rows, with and without a threshold, beside torch by chunks where that takes seconds at most."""
    x = embeddings(n)
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


def random_graph(n: int, degree: int) -> CSR:
    """A graph of uniform edges, 1 / degree each."""
    generator = np.random.default_rng(0)
    pattern = CSR.from_pairs(np.repeat(np.arange(n), degree), generator.integers(0, n, n * degree), (n, n))
    return CSR(pattern.indptr, pattern.indices, np.full(pattern.nnz, 1 / degree, np.float32), n)


def bench_propagate(n: int) -> None:
    """Two layers of propagate beside torch's CSR product, held to it first."""
    from mllmrec_kernels.propagate import torch_op

    graph, x = random_graph(n, 20), embeddings(n)
    made, stock = propagate(graph, x, layers=2), propagate(graph, x, layers=2, backend="torch")
    torch.testing.assert_close(made, stock, rtol=1e-4, atol=1e-5)
    matrix = torch_op.as_torch_csr(graph, x)
    methods: dict[str, Call] = {
        "triton": lambda: propagate(graph, x, layers=2),
        "torch CSR (cuSPARSE)": lambda: torch_op.by_torch(matrix, x, 2, "sum"),
    }
    compare("propagate", f"{n:,} x {WIDTH}, 2 layers", methods, 4.0 * graph.nnz * WIDTH * 2, "TB/s gathered")


def interactions(users: int, items: int, mean: int) -> CSR:
    """Interactions with items by a power law."""
    generator = np.random.default_rng(1)
    weights = 1 / (10 + np.arange(items)) ** 0.8
    chosen = generator.choice(items, users * mean, p=weights / weights.sum())
    return CSR.from_pairs(generator.integers(0, users, users * mean), chosen, (users, items))


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
    user_items, x = interactions(2 * items, items, 10), embeddings(items)
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
    compare("ridge_weights", f"{items:,} x {neighbors}", methods, work, "TFLOP/s", lambda call: wall_ms(call, 3))


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
    compare("train", f"{users:,} x {items:,}", methods, timed=lambda call: wall_ms(call, 3))


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
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, medians of {RUNS}; 3 of train and ridge_weights")
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
