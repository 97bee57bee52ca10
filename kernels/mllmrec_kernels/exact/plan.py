"""How a product in int8 will be made: on which axes, how many of them first, at which scale.

Rows are scaled to norm at most 1 and turned onto the principal axes of a sample. For two rows x and y, with
p their first m coordinates and r the others,

    x.y = p_x.p_y + r_x.r_y <= p_x.p_y + |r_x| |r_y|                        (Cauchy-Schwarz)

so m coordinates and one more, |r|, bound the product from above. Embeddings have a steep spectrum, and a
bound from a third of the axes lets through so few pairs that looking at those again is cheaper than
multiplying all axes for everyone. Inside the two groups of axes the rows are turned at random: the products
stay the same, while no coordinate sticks out, which is what int8 is precise for.

m is chosen by cost on a sample: bytes to multiply for every pair, plus what the pairs that pass would cost.
Where too many pass whatever m is, as for rows that are all but equal, there is no plan, and the float32
product does the work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.base.parallel import single_threaded
from mllmrec_kernels.exact.int8_tile import DEPTH
from mllmrec_kernels.exact.problem import Ask
from mllmrec_kernels.exact.score import as_unit, float32_error

LARGEST = 127  # of an int8 coordinate, and of its negative
MOST_FINE = 512  # coordinates of two bytes whose tile's sum stays within int32: d 127^2 2^8 and the mixed products
_HEADROOM = 1.05  # the scale is the sample's largest coordinate and a bit; what exceeds it is clipped and counted
_TALLEST = 1.001  # |r| of a row of norm at most 1, roundings included

# Costs in bytes multiplied: of a pair that needs a second look, of one that must be scored in float64, and of a
# float32 product's multiply-add and of reading its result; fitted to times of 50,000 embeddings at every m,
# AVX-512, two cores.
_SECOND_LOOK, _EXACT, _FLOAT32, _SCANNED = 24_000, 35_000, 3, 100
_PACKED = 700_000  # of a row of one byte a coordinate, d = 384; one of two bytes takes four times that
# While lists fill, bars stand lower than in the end. On the average over all pairs, as many pass as would if the
# bars stood where those of lists this many times as long end.
_EARLY = 16

_SPARE_BYTES = 8  # what the residual takes, about
_TURNING = 6e10  # axes and rotations, d = 384: a constant that few rows cannot earn back
_FEW_ROWS = 8_192  # that a smaller sample will do for
_TURN_WIDTH = 96  # coordinates; below, there is little to leave out
_SAMPLED_ROWS, _SAMPLED_QUERIES = 2_048, 128  # an eighth and a quarter of them where rows are few
# A row turned at random has Gaussian coordinates, the largest of all rows at 4.6 standard deviations or so, and
# rounding takes a uniform error of 1 / sqrt(12) steps off each: |z - its int8| is this share of |z|.
_ROUNDED_SHARE = 4.6 / LARGEST / 12**0.5


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The axes and scales of one product.

    Attributes:
        axes: float32 [d, d], one axis a row, or None for the rows' own.
        prefix: m, coordinates multiplied for every pair.
        fine: two bytes a coordinate, z = scale (q + q' / 256) and what is left: the tile multiplies q q',
            256 times, and the two mixed products; what it leaves out is q' q', 2^-16 of the scales.
        spares: bytes a row that hold |r|: spares * h^2 scale^2 stands for |r|^2, h at most 127.
        left_scale, right_scale: what one step of int8 is worth.
        error: bound of |x.y - z_x.z_y| that comes from turning, for computed coordinates z.
    """

    axes: NDArray[np.float32] | None
    prefix: int
    fine: bool
    spares: int
    left_scale: float
    right_scale: float
    error: float

    @property
    def stride(self) -> int:
        """Bytes of a row that are multiplied for every pair."""
        return (3 if self.fine else 1) * self._width + self.spares

    @property
    def depth(self) -> tuple[int, int, int]:
        """What the tile multiplies before its shift and in all, in steps of 4 bytes, and the shift."""
        return (self._width // DEPTH, self.stride // DEPTH, 8) if self.fine else (0, self.stride // DEPTH, 0)

    @property
    def steps(self) -> float:
        """What 1 in the tile's sum is worth."""
        return self.left_scale * self.right_scale / (256 if self.fine else 1)

    @property
    def _width(self) -> int:
        return -(-self.prefix // DEPTH) * DEPTH

    def turn(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates on the axes, float32 [n, d]."""
        return rows if self.axes is None else rows @ self.axes.T


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some queries against some items, all of norm at most 1."""

    left: NDArray[np.float32]  # [Q, d]
    right: NDArray[np.float32]  # [I, d]
    others: NDArray[np.float32]  # [I', d], other items, to take axes from: on their own rows axes look too good
    bars: NDArray[np.float32]  # [Q], where lists are likely to end


def make_plan(ask: Ask) -> Plan | None:
    """The cheapest plan, None where the float32 product is cheaper than any."""
    with single_threaded():
        return _cheapest(ask)


def _cheapest(ask: Ask) -> Plan | None:
    itself = ask.queries is ask.items
    sample = _draw(ask)
    d = ask.queries.shape[1]
    products = sample.left @ sample.right.T
    # The float32 product scores what passes it, too, and does both triangles.
    plain = (_cost(products, 0.0, d, d, sample) + (_FLOAT32 - 1) * d + _SCANNED) * (2 if itself else 1)
    coarse, fine = (_scaled(None, d, sample, itself=itself, fine=fine) for fine in (False, True))
    costs: dict[Plan | int | None, float] = {
        None: plain,
        coarse: _cost(products, _rounding(sample, coarse), d, d, sample),
    }
    if d <= MOST_FINE:
        costs[fine] = _cost(products, _rounding(sample, coarse) / 128, d, d, sample) + 2 * d
        # Rows are packed once for all their pairs, which shows where they are few.
        each = _PACKED * d / 384 * (1 / len(ask.queries) + 1 / len(ask.items))
        costs[coarse], costs[fine] = costs[coarse] + each, costs[fine] + 4 * each
    pairs = len(ask.queries) * len(ask.items) / (2 if itself else 1)
    turning = _TURNING / pairs
    if d >= _TURN_WIDTH and min(costs.values()) > 4 * turning:
        principal = _principal_axes(sample.others)
        costs |= {m: _cost_turned(principal, m, sample) + turning for m in _prefixes(d)}
    best = min(costs, key=costs.__getitem__)
    if isinstance(best, int):
        return _scaled(_axes(principal, best), best, sample, itself=itself)
    return best and own_axes(ask, fine=best.fine)


def own_axes(ask: Ask, *, fine: bool) -> Plan:
    """The plan that multiplies all coordinates as they are, at scales that clip none."""
    d = ask.items.shape[1]
    right = _largest(ask.items, ask.shrink)
    left = right if ask.queries is ask.items else _largest(ask.queries, ask.to_unit)
    left, right = ((1.0 + 1e-6) * (largest or 1.0) / LARGEST for largest in (left, right))
    return Plan(None, d, fine, 0, left, right, 0.0)


@compiled
def _largest(rows: Any, scale: Any) -> float:
    """The largest coordinate of the rows times their scale, whatever its sign."""
    largest = 0.0
    for r in range(len(rows)):
        of_row = np.float32(0)
        for j in range(rows.shape[1]):
            of_row = max(of_row, abs(rows[r, j]))
        largest = max(largest, np.float64(of_row) * scale[r])
    return largest


def _prefixes(d: int) -> list[int]:
    return [*(m for m in (64, 96, 128, 160, 192, 256, 320) if m < d), d]


def _draw(ask: Ask) -> _Sample:
    queries, items, itself = ask.queries, ask.items, ask.queries is ask.items
    generator = np.random.default_rng(0)
    few = max(len(queries), len(items)) < _FEW_ROWS
    rows, wanted = (_SAMPLED_ROWS // 8, _SAMPLED_QUERIES // 4) if few else (_SAMPLED_ROWS, _SAMPLED_QUERIES)
    mixed = generator.permutation(len(items))
    drawn, others = np.sort(mixed[:rows]), np.sort(mixed[rows : 2 * rows])
    asked = drawn if itself else generator.permutation(len(queries))[:rows]
    asked = asked[:: max(1, len(asked) // wanted)]
    left, right, rest = (
        as_unit(vectors[at], scale[at], np.empty((len(at), vectors.shape[1]), np.float32))
        for vectors, scale, at in (
            (queries, ask.to_unit, asked),
            (items, ask.shrink, drawn),
            (items, ask.shrink, others),
        )
    )
    products = left @ right.T
    if itself:
        products[asked[:, None] == drawn[None, :]] = -np.inf
    # Of so many in N, the sample holds its share; at least one, so a bar is never guessed above what was seen.
    place = min(len(drawn), max(1, round(_EARLY * ask.kept * len(drawn) / len(items))))
    bars = np.partition(products, -place, axis=1)[:, -place]
    return _Sample(left, right, rest, np.maximum(bars, np.float32(ask.floor)))


def _principal_axes(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Axes of falling energy (second moment about the origin, as products are), float64 [d, d]."""
    wide = rows.astype(np.float64)
    return np.ascontiguousarray(np.linalg.eigh(wide.T @ wide)[1][:, ::-1].T)


def _axes(principal: NDArray[np.float64], m: int) -> NDArray[np.float32]:
    """The first m axes turned at random among themselves, then the others likewise; float32 [d, d]."""
    generator = np.random.default_rng(m)
    groups = [principal[:m], principal[m:]]
    turned = [np.linalg.qr(generator.standard_normal((len(g), len(g))))[0] @ g for g in groups if len(g)]
    return np.ascontiguousarray(np.concatenate(turned), dtype=np.float32)


def _scaled(axes: NDArray[np.float32] | None, m: int, sample: _Sample, *, itself: bool, fine: bool = False) -> Plan:
    """Scales from the sample's largest coordinate, and as many spare bytes as |r| = 1 needs at them."""
    bare = Plan(axes, m, fine, 0, 1.0, 1.0, 0.0 if axes is None else _turning_error(axes))
    right = _HEADROOM * float(np.abs(bare.turn(sample.right)).max(initial=0.0)) / LARGEST
    left = right if itself else _HEADROOM * float(np.abs(bare.turn(sample.left)).max(initial=0.0)) / LARGEST
    # Under an inner product the longest rows may not be in the sample.
    right /= max(float(np.linalg.norm(sample.right, axis=1).max(initial=0.0)), 1e-3)
    left, right = (scale if scale > 0 else 1.0 / LARGEST for scale in (left, right))
    spares = int(np.ceil((_TALLEST / (LARGEST * min(left, right))) ** 2 / DEPTH)) * DEPTH
    return replace(bare, left_scale=left, right_scale=right, spares=spares if m < sample.left.shape[1] else 0)


def _turning_error(axes: NDArray[np.float32]) -> float:
    """Bound of |x.y - z_x.z_y| for z computed in float32 and rows of norm at most 1.

    |x.y - Ux.Uy| <= |U^T U - 1|, at most its Frobenius norm; and each coordinate of z is off by at most
    gamma_d |u_j| |x|, so z as a whole by gamma_d |U|_F, once for x and once for y, whose norms |U|_2 < 1.01
    bounds.
    """
    wide = axes.astype(np.float64)
    skew = float(np.linalg.norm(wide.T @ wide - np.eye(len(wide))))
    return skew + 2.02 * float32_error(len(wide)) * float(np.linalg.norm(wide))


def _cost_turned(principal: NDArray[np.float64], m: int, sample: _Sample) -> float:
    axes = principal.astype(np.float32).T
    left, right = sample.left @ axes, sample.right @ axes
    bound = left[:, :m] @ right[:, :m].T
    bound += np.linalg.norm(left[:, m:], axis=1)[:, None] * np.linalg.norm(right[:, m:], axis=1)
    energy = float(np.linalg.norm(right[:, :m])) / max(float(np.linalg.norm(right)), 1e-30)
    slack = 2 * _ROUNDED_SHARE * energy + 0.001
    return _cost(bound, slack, m, principal.shape[1], sample)


def _cost(bound: NDArray[np.float32], slack: float, m: int, d: int, sample: _Sample) -> float:
    """Bytes' worth of work a pair."""
    bars = sample.bars[:, None]
    passed = float((bound + slack >= bars).mean())
    # Of scoring, a third does not depend on d.
    exact = _EXACT * (1 / 3 + d / 576)
    if m == d:
        return m + passed * exact
    settled = float((sample.left @ sample.right.T + 2 * _ROUNDED_SHARE >= bars).mean())
    return m + _SPARE_BYTES + passed * _SECOND_LOOK + settled * exact


def _rounding(sample: _Sample, plan: Plan) -> float:
    """A typical sum of |z - its int8| over both sides."""
    total = 0.0
    for z, scale in ((plan.turn(sample.left), plan.left_scale), (plan.turn(sample.right), plan.right_scale)):
        off = z - np.clip(np.rint(z / scale), -LARGEST, LARGEST) * scale
        total += float(np.median(np.linalg.norm(off, axis=1))) if len(z) else 0.0
    return total
