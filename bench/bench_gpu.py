"""Each kernel on a CUDA device beside the peer a user would otherwise pick: `make bench-gpu`.

Times are CUDA events around whole calls, medians of RUNS after a warm-up, peers in turn in one process. Work is what
the method has to do, so a rate is comparable with the device's ceiling: 2 N^2 d for products, gathered bytes for
propagation, steps of the counter for co-occurrence. A kernel is checked against its peer before it is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from mllmrec_kernels import CSR, cooccurrence_topk, propagate, rank_heldout, ridge_weights, topk_cosine

RUNS, K, WIDTH = 5, 10, 384


def median_ms(call: Callable[[], object]) -> float:
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


def report(op: str, size: str, method: str, ms: float, work: float, unit: str) -> None:
    print(f"{op:20} {size:24} {method:44} {ms:12.2f} ms {work / ms / 1e9:10.3f} {unit}", flush=True)


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


def bench_topk(sizes: list[int]) -> None:
    """topk_cosine of n rows for each size, with and without a threshold, beside torch by chunks."""
    from mllmrec_kernels.topk import gpu  # only here: without Triton there is nothing to import

    for n in sizes:
        x, work, size = embeddings(n), 2.0 * n * n * WIDTH, f"{n:,} x {WIDTH}, k={K}"
        for threshold in (None, 0.7):
            ms = median_ms(lambda x=x, threshold=threshold: topk_cosine(x, K, threshold=threshold))
            report("topk_cosine", size, f"triton, threshold {threshold}", ms, work, "TFLOP/s")
        gpu.SYMMETRIC = False
        report(
            "topk_cosine",
            size,
            "triton, every product twice",
            median_ms(lambda x=x: topk_cosine(x, K)),
            work,
            "TFLOP/s",
        )
        gpu.SYMMETRIC = True
        if n <= 200_000:
            for dtype, note in ((torch.float32, "exact up to rounding"), (torch.bfloat16, "not exact")):
                ms = median_ms(lambda x=x, dtype=dtype: chunked_topk(x, dtype))
                report("topk_cosine", size, f"torch chunks, {dtype} ({note})", ms, work, "TFLOP/s")


def random_graph(n: int, degree: int) -> CSR:
    generator = np.random.default_rng(0)
    pattern = CSR.from_pairs(np.repeat(np.arange(n), degree), generator.integers(0, n, n * degree), (n, n))
    return CSR(pattern.indptr, pattern.indices, np.full(pattern.nnz, 1 / degree, np.float32), n)


def bench_propagate() -> None:
    """Two layers of propagate beside torch's CSR product, held to it first."""
    for n in (50_000, 500_000):
        graph, x = random_graph(n, 20), embeddings(n)
        work, size = 4.0 * graph.nnz * WIDTH * 2, f"{n:,} x {WIDTH}, 2 layers"
        made, stock = propagate(graph, x, layers=2), propagate(graph, x, layers=2, backend="torch")
        torch.testing.assert_close(made, stock, rtol=1e-4, atol=1e-5)
        ms = median_ms(lambda graph=graph, x=x: propagate(graph, x, layers=2))
        report("propagate", size, "triton", ms, work, "TB/s gathered")
        from mllmrec_kernels.propagate import torch_csr

        matrix = torch_csr.matrix(graph, x)
        ms = median_ms(lambda matrix=matrix, x=x: torch_csr.on_tensors(matrix, x, 2, "sum"))
        report("propagate", size, "torch CSR (cuSPARSE), matrix on the device", ms, work, "TB/s gathered")


def interactions(users: int, items: int, mean: int) -> CSR:
    generator = np.random.default_rng(1)
    weights = 1 / (10 + np.arange(items)) ** 0.8
    chosen = generator.choice(items, users * mean, p=weights / weights.sum())
    return CSR.from_pairs(generator.integers(0, users, users * mean), chosen, (users, items))


def wall_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of a call that starts and ends on the host."""
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def bench_cooccurrence() -> None:
    """cooccurrence_topk by CuPy beside Numba on the host, held to it first."""
    user_items = interactions(200_000, 50_000, 20)
    steps = float((np.diff(user_items.indptr) ** 2).sum())
    size = f"200,000 x 50,000, {user_items.nnz:,}"
    made, wanted = (cooccurrence_topk(user_items, K, backend=name, max_bytes=2**30) for name in ("cupy", "numba"))
    assert all((mine == theirs).all() for mine, theirs in zip(made, wanted, strict=True))
    for name in ("cupy", "numba"):
        ms = wall_ms(lambda name=name: cooccurrence_topk(user_items, K, backend=name))
        report(
            "cooccurrence_topk", size, f"{name}, copies to and from the device included", ms, 4 * steps, "TB/s counted"
        )


def bench_rank() -> None:
    """rank_heldout beside torch: a product, a mask and a top-50 for each chunk of users."""
    users, items, d = 200_000, 50_000, 64
    seen = interactions(users, items, 20)
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

    size, work = f"{users:,} x {items:,} x {d}", 2.0 * users * items * d
    report("rank_heldout", size, "triton", median_ms(lambda: rank_heldout(x, y, seen, heldout)), work, "TFLOP/s")
    report("rank_heldout", size, "torch chunks: product, mask, top-50", median_ms(stock), work, "TFLOP/s")


def bench_ridge(items: int = 100_000, neighbours: int = 60) -> None:
    """ridge_weights by torch on the device beside Numba on the host, held to it first."""
    user_items, x = interactions(2 * items, items, 10), embeddings(items)
    near = topk_cosine(x, neighbours)[0].cpu().numpy()
    support = CSR.from_pairs(np.repeat(np.arange(items), neighbours), near.ravel(), (items, items))

    def solve(name: str) -> CSR:
        return ridge_weights(user_items, x, support, content_weight=20, regularisation=50, backend=name)

    np.testing.assert_allclose(solve("torch").data, solve("numba").data, rtol=2**-23, atol=1e-9)
    size, work = f"{items:,} x {neighbours}", 2.0 * items * (neighbours + 1) ** 2 * WIDTH
    for name in ("torch", "numba"):
        ms = wall_ms(lambda name=name: solve(name))
        report("ridge_weights", size, f"{name}, copies included", ms, work, "TFLOP/s")


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
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, medians of {RUNS}")
    bench_topk(sizes)
    bench_propagate()
    bench_rank()
    bench_ridge()
    from mllmrec_kernels import available

    if available()["cupy"]:
        bench_cooccurrence()
    else:
        print("cooccurrence_topk: cupy has no device; pip install 'mllmrec[cuda]'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
