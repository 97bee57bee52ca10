"""topk_cosine and topk_dot on the GPU: a float16 product proposes, the float64 score decides.

With P, unit and |P - score / unit| <= error as gpu_score.py proves, for each query q of a block:

1. **A bar.** Every STRIDE-th item is a sample. The items fall into SAMPLED groups; if the k-th largest group maximum
   of P is v, then k different items score at least v - error, so does the true k-th best, and an item of
   P < v - 2 error is not among the best k. A threshold t bars what has P < t / unit - error.
2. **Lists.** One pass over all items appends those at or above the bar to a list of the query, by atomics; a list is
   a bounded number of keys (gpu_lists.py), put in order afterwards, so who came first does not show. Q x N products
   live in registers alone. About k STRIDE pairs a query come through. For a self graph whose lists all fit at once, one
   product serves both sides of a pair, and the lists raise their bars on the way.
3. **Decision.** The list's own k-th largest P raises the bar; what is left, some dozens, is scored exactly, and
   sorted by (score falling, id rising).

A list that overflowed has raised its bar from the keys it holds, real items, and goes again. A bar that does not rise
so (thousands of equal rows) sends its query to `_scan`, which scores every item exactly. Excluded items take
list slots and are dropped before anything is concluded from the list; in the sample they are counted and that many
more maxima are asked for.

Bytes, N items of d columns for Q queries: 2 d (N + Q) encoded, 8 CAPACITY a query in flight, 4 d a scored pair;
FLOPs 2 Q N d (1 + 1 / STRIDE), half of it for a self graph. Bound by the tensor cores. `max_bytes` bounds lists and
encoded rows, by smaller blocks of queries and items; when the device runs out of memory the block is halved.
A zero score is +0 here whatever the sign of the zero that rounding left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor

from mllmrec_kernels.base import device_cache as resident
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.topk import gpu_tiles

STRIDE = 16  # one item in so many is in the sample
CAPACITY, PER_NEIGHBOUR = 512, 32  # keys that a list holds: at least, and for each of the k; powers of two
ROUNDS = 3  # passes before a query that still overflows is scanned
SCAN = 4096  # items a step of the scan
IN_REGISTERS = 2048  # longest list that a program sorts; longer ones are left to torch
SYMMETRIC = True  # for a self graph whose lists all fit, whether one product serves both sides of a pair
REFRESHED = 2**16  # queries of a self graph from which their lists raise their bars on the way
ROWS, COLUMNS, GROUP = 128, 64, 16  # tile of products, queries by items; blocks of queries beside a block of items
WARPS, WARPS_HOPPER, STAGES = 8, 4, 3  # four were measured on an H200; sm_80 would spill with them
SAMPLED, SAMPLE_WARPS = 128, 8  # both sides of the tile that the sample is multiplied in: as many maxima there are
ENTRIES = 1024  # list entries that a program of `drop` takes
_EMPTY = -(2**63)
_FREE = -2.0
_INFINITE = 0x7F800000  # the upper half of a key whose score is infinite


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a top-k on the device.

    Attributes:
        x, y: queries [Q, d] and items [N, d], float32.
        a, b: weights of the exact score, float64 [Q] and [N]; 0 for a row that has no score.
        to_unit, shrink: what scales rows to norm at most 1, float64 [Q] and [N].
        unit: score of two scaled rows whose product is 1, float64 [Q].
        floor: least score listed, float64 [1].
        exclude: CSR of items left out, or None.
        without_self: whether item q is left out for query q.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    to_unit: Tensor
    shrink: Tensor
    unit: Tensor
    floor: Tensor
    exclude: resident.DeviceCSR | None
    without_self: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is in flight: `rows` queries with lists of `capacity` keys, `chunk` encoded items."""

    rows: int
    chunk: int
    capacity: int


def topk_cosine(
    queries: Tensor, features: Tensor, k: int, *, threshold: float | None, without_self: bool, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Exact top-k by cosine of float32 tensors on one device; see the verb."""
    b = gpu_score.inverse(gpu_score.norms(features))
    a = b if queries is features else gpu_score.inverse(gpu_score.norms(queries))
    floor = b.new_tensor([-torch.inf if threshold is None else threshold]).float().double()
    sides = Sides(queries, features, a, b, a, b, torch.ones_like(a), floor, None, without_self)
    return _shrinking(sides, k, max_bytes)


def topk_dot(
    queries: Tensor, items: Tensor, k: int, *, exclude: CSR | None, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Exact top-k by inner product of float32 tensors on one device; see the verb."""
    lengths, others = gpu_score.norms(queries), gpu_score.norms(items)
    largest = gpu_score.largest_of(others)
    shrink = gpu_score.inverse(largest).expand(len(items)).contiguous()
    left_out = None if exclude is None else resident.on_device(exclude, queries.device)
    floor = lengths.new_full((1,), -torch.inf)
    sides = Sides(
        queries, items, torch.ones_like(lengths), torch.ones_like(others), gpu_score.inverse(lengths), shrink,
        lengths * largest, floor, left_out, without_self=False,
    )  # fmt: skip
    return _shrinking(sides, k, max_bytes)


def _plan(n_queries: int, n_items: int, d: int, k: int, max_bytes: int) -> Plan:
    capacity = max(CAPACITY, triton.next_power_of_2(PER_NEIGHBOUR * k))
    row, item = 8 * capacity + 2 * gpu_score.padded(d) + 64, 2 * gpu_score.padded(d) + 8
    rows, chunk = max_bytes // 2 // row, max_bytes // 2 // item
    if not (rows and chunk):
        raise KernelInputError(
            f"max_bytes={max_bytes} holds no list at d={d}, k={k}; give at least {2 * max(row, item)}"
        )
    return Plan(min(rows, n_queries), min(chunk, n_items), capacity)


def _shrinking(sides: Sides, k: int, max_bytes: int | None) -> tuple[Tensor, Tensor]:
    """Run in blocks, halved whenever the device runs out of memory."""
    (q, d), n = sides.x.shape, len(sides.y)
    ids = torch.full((q, k), -1, dtype=torch.int32, device=sides.x.device)
    best = torch.full((q, k), -torch.inf, device=sides.x.device)
    if not (q and n):
        return ids, best
    plan = _plan(q, n, d, min(k, n), gpu_score.working_memory(sides.x.device, max_bytes))
    while True:
        try:
            _run(sides, min(k, n), plan, ids, best)
        except torch.OutOfMemoryError:
            if plan.rows == 1 and plan.chunk == 1:
                raise KernelError(f"top-k of {q} x {n} rows of {d}: the device is out of memory") from None
            plan = replace(plan, rows=max(1, plan.rows // 2), chunk=max(1, plan.chunk // 2))
        else:
            return ids, best


def _run(sides: Sides, k: int, plan: Plan, ids: Tensor, best: Tensor) -> None:
    whole = plan.chunk >= len(sides.y)
    items = _Items(sides, plan.chunk)
    symmetric = SYMMETRIC and whole and plan.rows >= len(sides.x) and sides.x is sides.y
    lists = torch.empty((plan.rows, plan.capacity), dtype=torch.int64, device=ids.device)
    for first in range(0, len(sides.x), plan.rows):
        block = _Block(sides, items, first, min(first + plan.rows, len(sides.x)), k)
        keys = block.solve(lists, symmetric=symmetric)
        _unpack(keys, ids[first : first + plan.rows, :k], best[first : first + plan.rows, :k])


def _unpack(keys: Tensor, ids: Tensor, best: Tensor) -> None:
    empty = keys == _EMPTY
    ids.copy_(torch.where(empty, -1, (2**31 - 1) - (keys & 0xFFFFFFFF)))
    best.copy_(torch.where(empty, -torch.inf, key_scores(keys)))


def key_scores(keys: Tensor) -> Tensor:
    """The float32 scores of keys, NaN for EMPTY; see gpu_tiles.key_score."""
    ordered = (keys >> 32).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


class _Items(gpu_score.Encoded):
    """The items in encoded chunks, and a sample of them that fits in one."""

    def __init__(self, sides: Sides, chunk: int) -> None:
        super().__init__(sides.y, sides.shrink, chunk, dead=sides.b == 0)
        self.stride = max(STRIDE, -(-len(sides.y) // chunk))
        y, shrink, b = (rows[:: self.stride].contiguous() for rows in (sides.y, sides.shrink, sides.b))
        self.sample, _ = gpu_score.encode(y, shrink, b == 0)


class _Block:
    """Queries first..last: their encoded rows, bars and error bounds."""

    def __init__(self, sides: Sides, items: _Items, first: int, last: int, k: int) -> None:
        self.sides, self.items, self.first, self.k = sides, items, first, k
        self.x, self.a = sides.x[first:last], sides.a[first:last]
        same = items.whole is not None and sides.x is sides.y and last - first == len(sides.y)
        self.half, rest = items.at(0) if same else gpu_score.encode(self.x, sides.to_unit[first:last])
        unit = sides.unit[first:last]
        self.error = gpu_score.error_bound(rest, items.largest_rest, unit, sides.x.shape[1])
        floor = gpu_score.rounded_down(sides.floor / unit - self.error)
        self.bars = torch.maximum(_number(floor), self._lowered(self._sampled(), self.error))
        self.bars[self.a == 0] = torch.inf  # a row that has no score has no neighbours

    @staticmethod
    def _lowered(kth: Tensor, error: Tensor) -> Tensor:
        """The bar that a k-th largest product proves: two errors below it."""
        return _number(gpu_score.rounded_down(kth.double() - 2 * error))

    def _sampled(self) -> Tensor:
        n, wanted = len(self.x), self._wanted()
        out = torch.empty(n, device=self.x.device)
        most = min(int(wanted.max()), SAMPLED)
        gpu_tiles.sample_bars[(triton.cdiv(n, SAMPLED),)](
            self.half, self.items.sample, wanted, out, n, len(self.items.sample), most,
            D=self.half.shape[1], BM=SAMPLED, BN=SAMPLED, BK=gpu_score.STEP, num_warps=SAMPLE_WARPS, num_stages=STAGES,
            **gpu_score.FUSED,
        )  # fmt: skip
        return torch.where(wanted > most, -torch.inf, out)

    def _wanted(self) -> Tensor:
        """k, and one more for every sampled item that the query may not list; int32 [rows]."""
        exclude, stride = self.sides.exclude, self.items.stride
        query = torch.arange(self.first, self.first + len(self.x), device=self.x.device)
        wanted = torch.full_like(query, self.k)
        if self.sides.without_self:
            wanted += query % stride == 0
        if exclude is not None:
            start, stop = exclude.indptr[query], exclude.indptr[query + 1]
            sampled = exclude.indices[int(start[0]) : int(stop[-1])] % stride == 0
            upto = torch.cat([query.new_zeros(1), sampled.cumsum(0)])
            wanted += upto[stop - start[0]] - upto[start - start[0]]
        return wanted.to(torch.int32)

    def solve(self, lists: Tensor, *, symmetric: bool) -> Tensor:
        """The k best keys of each query, falling, EMPTY behind them; int64 [rows, k]. `lists` is working memory."""
        answer = torch.full((len(self.x), self.k), _EMPTY, dtype=torch.int64, device=lists.device)
        rows = torch.arange(len(self.x), dtype=torch.int32, device=lists.device)
        bars, scanned = self.bars, []
        for _ in range(ROUNDS):
            keys, counts = self._collect(rows, bars, lists[: len(rows)], symmetric=symmetric)
            raised = self._raised(bars, keys, rows)
            done, rising = counts <= lists.shape[1], raised > bars
            if bool(done.all()):
                answer[rows] = self._decide(keys, raised, rows)
                rows = rows[:0]
                break
            answer[rows[done]] = self._decide(keys[done], raised[done], rows[done])
            scanned.append(rows[~done & ~rising])
            rows, bars, symmetric = rows[~done & rising], raised[~done & rising], False
        self._scan(torch.cat([*scanned, rows]), answer, len(lists))
        return answer

    def _collect(self, rows: Tensor, bars: Tensor, keys: Tensor, *, symmetric: bool) -> tuple[Tensor, Tensor]:
        """The lists of `rows`, in order, int64 [rows, width], and how many pairs met each bar, int32 [rows]."""
        counts = torch.zeros_like(rows)
        for first in self.items.starts:
            encoded, _ = self.items.at(first)
            if symmetric:
                self._collect_pairs(encoded, rows, bars, keys, counts)
            else:
                blocks = triton.cdiv(len(rows), ROWS) * triton.cdiv(len(encoded), COLUMNS)
                self._launch(blocks, encoded, rows, bars, keys, counts, first=first)
        return self._ordered(keys, counts, rows), counts

    def _collect_pairs(self, encoded: Tensor, rows: Tensor, bars: Tensor, keys: Tensor, counts: Tensor) -> None:
        """Of a self graph: a launch for each band of GROUP query blocks, which leaves out what lies before it.

        By then the lists of queries further on hold what the bands before gave them, and raise their bars each time
        that the number of items behind them has doubled: a query meets k ln(N) pairs or so in place of k STRIDE.
        """
        n, due = len(rows), len(rows) // self.items.stride if len(rows) >= REFRESHED else len(rows)
        for band in range(0, triton.cdiv(n, ROWS), GROUP):
            start = band * ROWS
            if start >= due:
                later = rows[start:]
                found = self._ordered(keys[start:], counts[start:], later)
                bars, due = torch.cat([bars[:start], self._raised(bars[start:], found, later)]), 2 * start
            blocks = GROUP * (triton.cdiv(n, COLUMNS) - start // COLUMNS)
            self._launch(blocks, encoded, rows, bars, keys, counts, symmetric=True, band=band)

    def _launch(
        self, blocks: int, encoded: Tensor, rows: Tensor, bars: Tensor, keys: Tensor, counts: Tensor,
        *, first: int = 0, band: int = 0, symmetric: bool = False,
    ) -> None:  # fmt: skip
        if blocks:
            gpu_tiles.collect[(blocks,)](
                self.half, encoded, rows, bars, keys, counts, len(rows), len(encoded), first, band, keys.shape[1],
                SYMMETRIC=symmetric, GROUP=GROUP, D=encoded.shape[1], BM=ROWS, BN=COLUMNS, BK=gpu_score.STEP,
                num_warps=_warps(keys.device), num_stages=STAGES, **gpu_score.FUSED,
            )  # fmt: skip

    def _ordered(self, keys: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
        """The lists of `rows` without what they may not hold, in order; int64 [rows, width]."""
        self._drop(keys, counts, rows)
        longest = int(counts.max()) if len(rows) else 0
        return _sorted(keys, min(keys.shape[1], triton.next_power_of_2(max(longest, self.k))))

    def _raised(self, bars: Tensor, ordered: Tensor, rows: Tensor) -> Tensor:
        """Bars that the k-th best of each list raises."""
        return bars.maximum(self._lowered(key_scores(ordered[:, self.k - 1]), self.error[rows]))

    def _drop(self, keys: Tensor, counts: Tensor, rows: Tensor) -> None:
        exclude = self.sides.exclude
        indptr, indices = (rows, rows) if exclude is None else (exclude.indptr, exclude.indices)
        steps = 0 if exclude is None else exclude.search_steps
        if keys.numel():
            gpu_tiles.drop[(triton.cdiv(keys.numel(), ENTRIES),)](
                keys, counts, rows, indptr, indices, self.first, keys.numel(), keys.shape[1], steps,
                WITHOUT_SELF=self.sides.without_self, EXCLUDE=exclude is not None, B=ENTRIES, **gpu_score.FUSED,
            )  # fmt: skip

    def _decide(self, keys: Tensor, bars: Tensor, rows: Tensor) -> Tensor:
        """The k best of ordered lists by their exact scores; int64 [rows, k]."""
        width = triton.next_power_of_2(self.k)
        while width < keys.shape[1] and bool((key_scores(keys[:, width]) >= bars).any()):
            width *= 2
        kept = keys[:, :width].contiguous()
        self._rescore(kept, bars, rows)
        return _sorted(kept, width)[:, : self.k]

    def _rescore(self, keys: Tensor, bars: Tensor, rows: Tensor) -> None:
        sides = self.sides
        if keys.numel():
            gpu_tiles.rescore[(triton.cdiv(keys.numel(), gpu_score.SCORED),)](
                keys, bars, rows, self.x, sides.y, self.a, sides.b, sides.floor, keys.numel(), keys.shape[1],
                sides.y.shape[1], B=gpu_score.SCORED, **gpu_score.FUSED,
            )  # fmt: skip

    def _scan(self, rows: Tensor, answer: Tensor, together: int) -> None:
        """Score every item for these queries, `together` of them at a time at most."""
        n, capacity = len(self.sides.y), SCAN
        for some in torch.split(rows, max(1, together // 8)):
            best, free = answer[some], torch.full((len(some),), _FREE, device=rows.device)
            for first in range(0, n, capacity):
                item = torch.arange(first, min(first + capacity, n), device=rows.device)
                keys = ((_INFINITE << 32) | (2**31 - 1 - item)).expand(len(some), -1).contiguous()
                self._drop(keys, torch.full_like(some, len(item)), some)
                self._rescore(keys, free, some)
                best = torch.cat([best, keys], dim=1).topk(self.k, dim=1).values
            answer[some] = best


def _sorted(keys: Tensor, width: int) -> Tensor:
    """The first `width` keys of each row, falling, int64 [rows, width]; the buffer's content is lost."""
    if width > IN_REGISTERS:
        return keys[:, :width].sort(dim=1, descending=True).values
    if len(keys):
        gpu_tiles.sort_rows[(len(keys),)](keys, keys.shape[1], W=width, **gpu_score.FUSED)
    return keys[:, :width]


def _warps(device: torch.device) -> int:
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return WARPS_HOPPER if hopper else WARPS


def _number(bars: Tensor) -> Tensor:
    """A bar that every product meets (none is below -1.01) in place of none at all."""
    return torch.where(bars.isnan(), _FREE, bars.clamp(min=_FREE))
