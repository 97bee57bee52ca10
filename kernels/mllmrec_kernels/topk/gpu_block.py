"""A block of queries of top-k on the GPU: its thresholds, its lists, its decisions. See gpu.py for the method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.topk import gpu_tiles

STRIDE = 16  # one item in so many is in the sample
ROUNDS = 3  # passes before a query that still overflows is scanned
SCAN = 4096  # items per step of the scan
IN_REGISTERS = 2048  # longest list that a program sorts; longer ones are left to torch
REFRESHED = 2**16  # with so many queries of a self graph, lists raise their thresholds on the way
ROWS, COLUMNS, GROUP = 128, 64, 16  # tile of products, queries by items; blocks of queries beside a block of items
WARPS, WARPS_HOPPER, STAGES = 8, 4, 3  # four were measured on an H200; sm_80 would spill with them
SAMPLED, SAMPLE_WARPS = 128, 8  # both problem of the tile that the sample is multiplied in: as many maxima there are
ENTRIES = 1024  # list entries that a program of `drop` takes
EMPTY = -(2**63)
_FREE = -2.0
_INFINITE = 0x7F800000  # the upper half of a key whose score is infinite


@dataclass(frozen=True, slots=True)
class DeviceProblem:
    """One top-k search on the device.

    Attributes:
        queries: float32 [Q, d].
        items: float32 [N, d]; the same tensor as `queries` in a self graph.
        query_weights: float64 [Q], of the exact score; 0 for a row that has no score.
        item_weights: float64 [N], likewise.
        query_scale: float64 [Q], makes rows of norm at most 1.
        item_scale: float64 [N], likewise.
        score_unit: float64 [Q], the score of two scaled rows whose product is 1.
        min_score: float64 [1], least score listed.
        exclude: pattern of the items left out, or None.
        exclude_self: leave item q out of list q.
    """

    queries: Tensor
    items: Tensor
    query_weights: Tensor
    item_weights: Tensor
    query_scale: Tensor
    item_scale: Tensor
    score_unit: Tensor
    min_score: Tensor
    exclude: device_cache.DeviceCSR | None
    exclude_self: bool


def key_scores(keys: Tensor) -> Tensor:
    """Return the float32 scores of keys, NaN for EMPTY, as gpu_lists.key_score does on the device."""
    ordered = (keys >> 32).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


class Items(gpu_score.Encoded):
    """Items in encoded chunks, and a sample of them that fits in one."""

    def __init__(self, problem: DeviceProblem, chunk: int) -> None:
        super().__init__(problem.items, problem.item_scale, chunk, dead=problem.item_weights == 0)
        self.stride = max(STRIDE, -(-len(problem.items) // chunk))
        y, scale, weights = (
            rows[:: self.stride].contiguous() for rows in (problem.items, problem.item_scale, problem.item_weights)
        )
        self.sample, _ = gpu_score.encode(y, scale, weights == 0)


class Block:
    """Queries first to last: their encoded rows, thresholds and error bounds."""

    def __init__(self, problem: DeviceProblem, items: Items, first: int, last: int, k: int) -> None:
        self.problem, self.items, self.first, self.k = problem, items, first, k
        self.x, self.a = problem.queries[first:last], problem.query_weights[first:last]
        same = items.whole is not None and problem.queries is problem.items and last - first == len(problem.items)
        self.half, rest = items.at(0) if same else gpu_score.encode(self.x, problem.query_scale[first:last])
        unit = problem.score_unit[first:last]
        self.error = gpu_score.error_bound(rest, items.largest_rest, unit, problem.queries.shape[1])
        floor = gpu_score.rounded_down(problem.min_score / unit - self.error)
        self.thresholds = torch.maximum(_number(floor), self._lowered(self._sampled(), self.error))
        self.thresholds[self.a == 0] = torch.inf  # a row that has no score has no neighbors

    @staticmethod
    def _lowered(kth: Tensor, error: Tensor) -> Tensor:
        """Return the threshold that a k-th largest product proves: two errors below it."""
        return _number(gpu_score.rounded_down(kth.double() - 2 * error))

    def _sampled(self) -> Tensor:
        n, places = len(self.x), self._sample_places()
        out = torch.empty(n, device=self.x.device)
        largest = min(int(places.max()), SAMPLED)
        gpu_tiles.sample_thresholds[(triton.cdiv(n, SAMPLED),)](
            self.half, self.items.sample, places, out, n, len(self.items.sample), largest,
            D=self.half.shape[1], BM=SAMPLED, BN=SAMPLED, BK=gpu_score.STEP, num_warps=SAMPLE_WARPS, num_stages=STAGES,
            **gpu_score.FUSED,
        )  # fmt: skip
        return torch.where(places > largest, -torch.inf, out)

    def _sample_places(self) -> Tensor:
        """Return k, plus one for every sampled item that the query must not list; int32 [rows]."""
        exclude, stride = self.problem.exclude, self.items.stride
        query = torch.arange(self.first, self.first + len(self.x), device=self.x.device)
        places = torch.full_like(query, self.k)
        if self.problem.exclude_self:
            places += query % stride == 0
        if exclude is not None:
            start, stop = exclude.indptr[query], exclude.indptr[query + 1]
            sampled = exclude.indices[int(start[0]) : int(stop[-1])] % stride == 0
            upto = torch.cat([query.new_zeros(1), sampled.cumsum(0)])
            places += upto[stop - start[0]] - upto[start - start[0]]
        return places.to(torch.int32)

    def solve(self, lists: Tensor, *, symmetric: bool) -> Tensor:
        """Return the k best keys of each query, falling, then EMPTY; int64 [rows, k]. `lists` is working memory."""
        answer = torch.full((len(self.x), self.k), EMPTY, dtype=torch.int64, device=lists.device)
        rows = torch.arange(len(self.x), dtype=torch.int32, device=lists.device)
        thresholds, scanned = self.thresholds, []
        for _ in range(ROUNDS):
            keys, counts = self._collect(rows, thresholds, lists[: len(rows)], symmetric=symmetric)
            raised = self._raised(thresholds, keys, rows)
            done, rising = counts <= lists.shape[1], raised > thresholds
            if bool(done.all()):
                answer[rows] = self._decide(keys, raised, rows)
                rows = rows[:0]
                break
            answer[rows[done]] = self._decide(keys[done], raised[done], rows[done])
            scanned.append(rows[~done & ~rising])
            rows, thresholds, symmetric = rows[~done & rising], raised[~done & rising], False
        self._scan(torch.cat([*scanned, rows]), answer, len(lists))
        return answer

    def _collect(self, rows: Tensor, thresholds: Tensor, keys: Tensor, *, symmetric: bool) -> tuple[Tensor, Tensor]:
        """Return the sorted lists of `rows`, int64 [rows, width], and the pairs above each threshold, int32 [rows]."""
        counts = torch.zeros_like(rows)
        for first in self.items.starts:
            encoded, _ = self.items.at(first)
            if symmetric:
                self._collect_pairs(encoded, rows, thresholds, keys, counts)
            else:
                blocks = triton.cdiv(len(rows), ROWS) * triton.cdiv(len(encoded), COLUMNS)
                self._launch(blocks, encoded, rows, thresholds, keys, counts, first=first)
        return self._sorted_lists(keys, counts, rows), counts

    def _collect_pairs(self, encoded: Tensor, rows: Tensor, thresholds: Tensor, keys: Tensor, counts: Tensor) -> None:
        """Fill the lists of a self graph, one launch a band of GROUP query blocks, without the items before the band.

        By then later queries' lists hold what the bands before gave them. They raise their thresholds each time the
        number of items behind them has doubled: a query meets about k ln(N) pairs in place of k STRIDE.
        """
        n, due = len(rows), len(rows) // self.items.stride if len(rows) >= REFRESHED else len(rows)
        for band in range(0, triton.cdiv(n, ROWS), GROUP):
            start = band * ROWS
            if start >= due:
                later = rows[start:]
                found = self._sorted_lists(keys[start:], counts[start:], later)
                thresholds, due = (
                    torch.cat([thresholds[:start], self._raised(thresholds[start:], found, later)]),
                    2 * start,
                )
            blocks = GROUP * (triton.cdiv(n, COLUMNS) - start // COLUMNS)
            self._launch(blocks, encoded, rows, thresholds, keys, counts, symmetric=True, band=band)

    def _launch(
        self, blocks: int, encoded: Tensor, rows: Tensor, thresholds: Tensor, keys: Tensor, counts: Tensor,
        *, first: int = 0, band: int = 0, symmetric: bool = False,
    ) -> None:  # fmt: skip
        if blocks:
            gpu_tiles.collect[(blocks,)](
                self.half, encoded, rows, thresholds, keys, counts, len(rows), len(encoded), first, band, keys.shape[1],
                SYMMETRIC=symmetric, GROUP=GROUP, D=encoded.shape[1], BM=ROWS, BN=COLUMNS, BK=gpu_score.STEP,
                num_warps=_warps(keys.device), num_stages=STAGES, **gpu_score.FUSED,
            )  # fmt: skip

    def _sorted_lists(self, keys: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
        """Return the sorted lists of `rows` without excluded items; int64 [rows, width]."""
        self._drop(keys, counts, rows)
        longest = int(counts.max()) if len(rows) else 0
        return _sorted(keys, min(keys.shape[1], triton.next_power_of_2(max(longest, self.k))))

    def _raised(self, thresholds: Tensor, sorted_lists: Tensor, rows: Tensor) -> Tensor:
        """Return thresholds raised to what the k-th best of each list proves."""
        return thresholds.maximum(self._lowered(key_scores(sorted_lists[:, self.k - 1]), self.error[rows]))

    def _drop(self, keys: Tensor, counts: Tensor, rows: Tensor) -> None:
        exclude = self.problem.exclude
        indptr, indices = (rows, rows) if exclude is None else (exclude.indptr, exclude.indices)
        steps = 0 if exclude is None else exclude.search_steps
        if keys.numel():
            gpu_tiles.drop[(triton.cdiv(keys.numel(), ENTRIES),)](
                keys, counts, rows, indptr, indices, self.first, keys.numel(), keys.shape[1], steps,
                EXCLUDE_SELF=self.problem.exclude_self, EXCLUDE=exclude is not None, B=ENTRIES, **gpu_score.FUSED,
            )  # fmt: skip

    def _decide(self, keys: Tensor, thresholds: Tensor, rows: Tensor) -> Tensor:
        """Return the k best of sorted lists by their exact scores; int64 [rows, k]."""
        width = triton.next_power_of_2(self.k)
        while width < keys.shape[1] and bool((key_scores(keys[:, width]) >= thresholds).any()):
            width *= 2
        kept = keys[:, :width].contiguous()
        self._rescore(kept, thresholds, rows)
        return _sorted(kept, width)[:, : self.k]

    def _rescore(self, keys: Tensor, thresholds: Tensor, rows: Tensor) -> None:
        problem = self.problem
        if keys.numel():
            gpu_tiles.rescore[(triton.cdiv(keys.numel(), gpu_score.SCORED),)](
                keys, thresholds, rows, self.x, problem.items, self.a, problem.item_weights, problem.min_score,
                keys.numel(), keys.shape[1], problem.items.shape[1], B=gpu_score.SCORED, **gpu_score.FUSED,
            )  # fmt: skip

    def _scan(self, rows: Tensor, answer: Tensor, together: int) -> None:
        """Score every item for these queries, `together` of them at a time at most."""
        n, capacity = len(self.problem.items), SCAN
        for part in torch.split(rows, max(1, together // 8)):
            best, free = answer[part], torch.full((len(part),), _FREE, device=rows.device)
            for first in range(0, n, capacity):
                item = torch.arange(first, min(first + capacity, n), device=rows.device)
                keys = ((_INFINITE << 32) | (2**31 - 1 - item)).expand(len(part), -1).contiguous()
                self._drop(keys, torch.full_like(part, len(item)), part)
                self._rescore(keys, free, part)
                best = torch.cat([best, keys], dim=1).topk(self.k, dim=1).values
            answer[part] = best


def _sorted(keys: Tensor, width: int) -> Tensor:
    """Return the first `width` keys of each row, falling, int64 [rows, width]; the buffer is overwritten."""
    if width > IN_REGISTERS:
        return keys[:, :width].sort(dim=1, descending=True).values
    if len(keys):
        gpu_tiles.sort_rows[(len(keys),)](keys, keys.shape[1], W=width, **gpu_score.FUSED)
    return keys[:, :width]


def _warps(device: torch.device) -> int:
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return WARPS_HOPPER if hopper else WARPS


def _number(thresholds: Tensor) -> Tensor:
    """Replace a missing threshold by one that every product meets; none is below -1.01."""
    return torch.where(thresholds.isnan(), _FREE, thresholds.clamp(min=_FREE))
