"""Plan of a product in int8: its axes, how many of them every pair is multiplied on, and its scales.

Rows are scaled to norm at most 1 and rotated onto the principal axes of a sample. For two rows x and y, with
p their first m coordinates and r the others,

    x.y = p_x.p_y + r_x.r_y <= p_x.p_y + |r_x| |r_y|                        (Cauchy-Schwarz)

so m coordinates and one more, |r|, bound the product from above. Embeddings have a steep spectrum, and a
bound from a third of the axes lets few pairs through. Bounding those again by all axes is cheaper than
multiplying all axes for every pair. Inside the two groups of axes the rows are rotated at random. The products
stay the same, and no coordinate sticks out, which suits int8.

m is chosen by cost on a sample: bytes to multiply for every pair, plus the cost of the pairs that pass.
Where too many pass for every m, as with nearly equal rows, there is no plan and the float32 product runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Float64Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import single_threaded_blas
from mllmrec_kernels.exact.int8_tile import DEPTH
from mllmrec_kernels.exact.problem import TopKProblem
from mllmrec_kernels.exact.score import float32_error, unit_rows

MAX_CODE = 127  # of an int8 coordinate, and of its negative
_LARGEST_SUM = 2**31 - 1
MAX_TWO_BYTE_COLUMNS = 516  # whose tile sum stays within int32: d (127^2 2^8 + 2 127^2)
_HEADROOM = 1.05  # the scale is the sample's largest coordinate times this; what exceeds it is clipped and counted
_MAX_TAIL_NORM = 1.001  # |r| of a row of norm at most 1, roundings included

# Costs in bytes multiplied: of a pair that all coordinates must bound, of one that is scored in float64, of a float32
# product's multiply-add and of reading its result. Fitted to times of 50,000 embeddings at every m, AVX-512, two
# cores.
_SECOND_BOUND, _EXACT, _FLOAT32, _SCANNED = 24_000, 35_000, 3, 100
_QUANTIZED = 700_000  # of a row of one byte per coordinate, d = 384; one of two bytes takes four times that
# Thresholds rise while lists fill. Averaged over all pairs, as many pass as at the final thresholds of lists this
# many times as long.
_EARLY = 16

_TAIL_BYTES = 8  # typical, a row
_ROTATION = 6e10  # axes and rotations, d = 384: a constant cost that few rows cannot earn back
_FEW_ROWS = 8_192  # below, a smaller sample suffices
_MIN_ROTATED = 96  # coordinates; below, there is little to leave out
_SAMPLED_ROWS, _SAMPLED_QUERIES = 2_048, 128  # an eighth and a quarter of them if rows are few
# A randomly rotated row has Gaussian coordinates, the largest of all rows at about 4.6 standard deviations. Rounding
# takes a uniform error of 1 / sqrt(12) steps off each: |z - its int8| is this share of |z|.
_ROUNDED_SHARE = 4.6 / MAX_CODE / 12**0.5


@dataclass(frozen=True, slots=True, eq=False)
class RotationPlan:
    """Axes and scales of one int8 product.

    Attributes:
        axes: float32 [d, d], one axis a row, or None for the rows' own.
        prefix: m, coordinates multiplied for every pair.
        two_bytes: use two bytes per coordinate, z = scale (q + q' / 256) and a remainder. The tile sums 256 q q and
            the two mixed products q q'; it leaves out q' q', 2^-16 of the scales.
        tail_bytes: bytes per row that hold |r|: tail_bytes * h^2 scale^2 stands for |r|^2, h at most 127.
        left_scale: worth of one step of int8 in a row of the queries.
        right_scale: worth of one step of int8 in a row of the items.
        error: bound of |x.y - z_x.z_y| that comes from the rotation, for computed coordinates z.
    """

    axes: NDArray[np.float32] | None
    prefix: int
    two_bytes: bool
    tail_bytes: int
    left_scale: float
    right_scale: float
    error: float

    @property
    def stride(self) -> int:
        """Count the bytes of a row that are multiplied for every pair."""
        return (3 if self.two_bytes else 1) * self._width + self.tail_bytes

    @property
    def depth(self) -> tuple[int, int, int]:
        """Return the tile's depth before its shift and in all, in groups of 4 bytes, and the shift."""
        return (self._width // DEPTH, self.stride // DEPTH, 8) if self.two_bytes else (0, self.stride // DEPTH, 0)

    @property
    def step(self) -> float:
        """Return the worth of 1 in the tile's sum."""
        return self.left_scale * self.right_scale / (256 if self.two_bytes else 1)

    @property
    def _width(self) -> int:
        return -(-self.prefix // DEPTH) * DEPTH

    def rotate(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows' coordinates on the axes, float32 [n, d]."""
        return rows if self.axes is None else rows @ self.axes.T


@dataclass(frozen=True, slots=True)
class _Sample:
    """Sampled queries and items, all of norm at most 1."""

    left: NDArray[np.float32]  # [Q, d]
    right: NDArray[np.float32]  # [I, d]
    list_ends: NDArray[np.float32]  # [Q], scores at which lists are likely to end
    problem: TopKProblem
    others: NDArray[np.int64]  # [I'], items that are not in `right`

    @property
    def axis_rows(self) -> NDArray[np.float32]:
        """Copy other items, to take axes from: on their own rows axes look too good; float32 [I', d]."""
        return unit_rows(self.problem.items[self.others], self.problem.item_scale[self.others])


@single_threaded_blas()
def make_plan(
    problem: TopKProblem, ends: NDArray[np.float32] | None = None, n_queries: int | None = None
) -> RotationPlan | None:
    """Return the cheapest plan; None where the float32 product is cheaper than any.

    Args:
        problem: the search.
        ends: float32 [Q], scores that end a list already, -inf where a list is not full; None: all lists are empty.
        n_queries: queries that the plan serves in all; None: those of the problem.
    """
    itself, n_queries = problem.queries is problem.items, n_queries or len(problem.queries)
    sample = _draw_sample(problem, ends)
    d = problem.queries.shape[1]
    products = sample.left @ sample.right.T
    # The float32 product also scores what passes, and does both triangles.
    plain = (_cost(products, 0.0, d, d, sample) + (_FLOAT32 - 1) * d + _SCANNED) * (2 if itself else 1)
    coarse, fine = (_scaled(None, d, sample, itself=itself, two_bytes=two_bytes) for two_bytes in (False, True))
    costs: dict[RotationPlan | int | None, float] = {
        None: plain,
        coarse: _cost(products, _rounding(sample, coarse), d, d, sample),
    }
    if d <= MAX_TWO_BYTE_COLUMNS:
        costs[fine] = _cost(products, _rounding(sample, coarse) / 128, d, d, sample) + 2 * d
        # Rows are quantized once for all their pairs; that cost shows if rows are few.
        each = _QUANTIZED * d / 384 * (1 / n_queries + 1 / len(problem.items))
        costs[coarse], costs[fine] = costs[coarse] + each, costs[fine] + 4 * each
    pairs = n_queries * len(problem.items) / (2 if itself else 1)
    rotation = _ROTATION / pairs
    if d >= _MIN_ROTATED and min(costs.values()) > 4 * rotation:
        principal = _principal_axes(sample.axis_rows)
        costs |= {m: _rotated_cost(principal, m, sample) + rotation for m in _prefixes(d)}
    best = min(costs, key=costs.__getitem__)
    if isinstance(best, int):
        return _scaled(_axes(principal, best), best, sample, itself=itself)
    return best and unrotated_plan(problem, two_bytes=best.two_bytes)


def unrotated_plan(problem: TopKProblem, *, two_bytes: bool) -> RotationPlan:
    """Return the plan that multiplies all coordinates as they are, at scales that clip none."""
    d = problem.items.shape[1]
    right = _largest(problem.items, problem.item_scale)
    left = right if problem.queries is problem.items else _largest(problem.queries, problem.query_scale)
    code = _largest_code(d) if two_bytes else MAX_CODE
    left, right = ((1.0 + 1e-6) * (largest or 1.0) / code for largest in (left, right))
    return RotationPlan(None, d, two_bytes, 0, left, right, 0.0)


def _largest_code(d: int) -> int:
    """Return the largest first byte c with which two bytes fit into int32: d (c^2 2^8 + 2 c 127)."""
    code = int(-MAX_CODE / 256 + ((MAX_CODE / 256) ** 2 + _LARGEST_SUM / (256 * max(1, d))) ** 0.5)
    return max(1, min(MAX_CODE, code))


@jit
def _largest(rows: Float32Array, scale: Float64Array) -> float:
    """Return the largest |coordinate| of the rows times their scale."""
    largest = 0.0
    for r in range(len(rows)):
        of_row = np.float32(0)
        for j in range(rows.shape[1]):
            of_row = max(of_row, abs(rows[r, j]))
        largest = max(largest, np.float64(of_row) * scale[r])
    return largest


def _prefixes(d: int) -> list[int]:
    return [*(m for m in (64, 96, 128, 160, 192, 256, 320) if m < d), d]


def _draw_sample(problem: TopKProblem, ends: NDArray[np.float32] | None = None) -> _Sample:
    queries, items, itself = problem.queries, problem.items, problem.queries is problem.items
    generator = np.random.default_rng(0)
    few = max(len(queries), len(items)) < _FEW_ROWS
    rows, n_queries = (_SAMPLED_ROWS // 8, _SAMPLED_QUERIES // 4) if few else (_SAMPLED_ROWS, _SAMPLED_QUERIES)
    mixed = generator.permutation(len(items))
    item_rows, others = np.sort(mixed[:rows]), np.sort(mixed[rows : 2 * rows])
    query_rows = item_rows if itself else generator.permutation(len(queries))[:rows]
    query_rows = query_rows[:: max(1, len(query_rows) // n_queries)]
    left = unit_rows(queries[query_rows], problem.query_scale[query_rows])
    right = unit_rows(items[item_rows], problem.item_scale[item_rows])
    products = left @ right.T
    if itself:
        products[query_rows[:, None] == item_rows[None, :]] = -np.inf
    # The sample holds its share of a list; at least one entry, so that an end is never guessed above what was seen.
    place = min(len(item_rows), max(1, round(_EARLY * problem.k * len(item_rows) / len(items))))
    products.partition(-place, axis=1)
    list_ends = products[:, -place]
    if ends is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            list_ends = np.fmax(list_ends, (ends[query_rows] / problem.score_unit[query_rows]).astype(np.float32))
    return _Sample(left, right, np.maximum(list_ends, np.float32(problem.min_score)), problem, others)


def _principal_axes(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the axes of falling second moment about the origin, one a row; float64 [d, d]."""
    wide = rows.astype(np.float64)
    return np.ascontiguousarray(np.linalg.eigh(wide.T @ wide)[1][:, ::-1].T)


def _axes(principal: NDArray[np.float64], m: int) -> NDArray[np.float32]:
    """Rotate the first m axes at random among themselves, then the others likewise; float32 [d, d]."""
    generator = np.random.default_rng(m)
    groups = [principal[:m], principal[m:]]
    rotated = [np.linalg.qr(generator.standard_normal((len(g), len(g))))[0] @ g for g in groups if len(g)]
    return np.ascontiguousarray(np.concatenate(rotated), dtype=np.float32)


def _scaled(
    axes: NDArray[np.float32] | None, m: int, sample: _Sample, *, itself: bool, two_bytes: bool = False
) -> RotationPlan:
    """Return the plan with scales from the sample's largest coordinate, and the tail bytes that |r| = 1 needs."""
    bare = RotationPlan(axes, m, two_bytes, 0, 1.0, 1.0, 0.0 if axes is None else _rotation_error(axes))
    right = _HEADROOM * float(np.abs(bare.rotate(sample.right)).max(initial=0.0)) / MAX_CODE
    left = right if itself else _HEADROOM * float(np.abs(bare.rotate(sample.left)).max(initial=0.0)) / MAX_CODE
    # Under an inner product the longest rows may not be in the sample.
    right /= max(float(np.linalg.norm(sample.right, axis=1).max(initial=0.0)), 1e-3)
    left, right = (scale if scale > 0 else 1.0 / MAX_CODE for scale in (left, right))
    tail_bytes = int(np.ceil((_MAX_TAIL_NORM / (MAX_CODE * min(left, right))) ** 2 / DEPTH)) * DEPTH
    return replace(bare, left_scale=left, right_scale=right, tail_bytes=tail_bytes if m < sample.left.shape[1] else 0)


def _rotation_error(axes: NDArray[np.float32]) -> float:
    """Bound |x.y - z_x.z_y| for z computed in float32 and rows of norm at most 1.

    |x.y - Ux.Uy| <= |U^T U - 1|, at most its Frobenius norm. Each coordinate of z is off by at most gamma_d |u_j| |x|,
    so z as a whole by gamma_d |U|_F. That counts once for x and once for y, with |U|_2 < 1.01.
    """
    wide = axes.astype(np.float64)
    skew = float(np.linalg.norm(wide.T @ wide - np.eye(len(wide))))
    return skew + 2.02 * float32_error(len(wide)) * float(np.linalg.norm(wide))


def _rotated_cost(principal: NDArray[np.float64], m: int, sample: _Sample) -> float:
    axes = principal.astype(np.float32).T
    left, right = sample.left @ axes, sample.right @ axes
    bound = left[:, :m] @ right[:, :m].T
    bound += np.linalg.norm(left[:, m:], axis=1)[:, None] * np.linalg.norm(right[:, m:], axis=1)
    energy = float(np.linalg.norm(right[:, :m])) / max(float(np.linalg.norm(right)), 1e-30)
    rounding = 2 * _ROUNDED_SHARE * energy + 0.001
    return _cost(bound, rounding, m, principal.shape[1], sample)


def _cost(bound: NDArray[np.float32], rounding: float, m: int, d: int, sample: _Sample) -> float:
    """Return the cost of a pair, in bytes multiplied."""
    list_ends = sample.list_ends[:, None]
    passing = float((bound + rounding >= list_ends).mean())
    # A third of the cost of a score does not depend on d.
    exact = _EXACT * (1 / 3 + d / 576)
    if m == d:
        return m + passing * exact
    scored = float((sample.left @ sample.right.T + 2 * _ROUNDED_SHARE >= list_ends).mean())
    return m + _TAIL_BYTES + passing * _SECOND_BOUND + scored * exact


def _rounding(sample: _Sample, plan: RotationPlan) -> float:
    """Return a typical sum of |z - its int8| over both sides."""
    total = 0.0
    for z, scale in ((plan.rotate(sample.left), plan.left_scale), (plan.rotate(sample.right), plan.right_scale)):
        off = z - np.clip(np.rint(z / scale), -MAX_CODE, MAX_CODE) * scale
        total += float(np.median(np.linalg.norm(off, axis=1))) if len(z) else 0.0
    return total
