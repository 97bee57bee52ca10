"""The score of a pair on the device, the bits of exact/score.py, and the half-precision rows that propose pairs.

    score(x, y) = float32( dot(x, y) * (a * b) ),   dot in float64: eight interleaved sums, folded, then the tail

The product of two float32 numbers is exact in float64, so fused and plain multiply-adds agree. Each fold adds two
numbers, in either order the same. Only the order of summation is left, and it is that of score.py.

**The bound.** A row x is scaled to x̂ = x a of norm at most 1 and rounded to float16 as x̃; r(x) = |x̂ - x̃| is
measured in float64. (float16 has the exponents that rows of norm 1 need, and eight times the precision of bfloat16
at the same speed.) The tensor cores multiply float16 exactly and add in float32. For the product P that they return

    |P - x̂.ŷ| <= |x̂ - x̃| |ŷ| + |x̃| |ŷ - ỹ| + |P - x̃.ỹ|                                 (Cauchy-Schwarz)
              <= r(x) + (1 + r(x)) max r(y) + (d + 16) 2^-21

The last term: tensor cores align the addends of one step to the largest and cut, instead of rounding (Fasi, Higham,
Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ CS 2021). Every one of the at most 2 d
addends and partial sums thus loses less than one unit, 2^-23 of the largest magnitude present, itself at
most |x̃||ỹ| <= (1 + r)^2 < 1.01. 2 d 2^-23 is half of the term. The other half, and the 16, stand for the float32
rounding of the score and of the threshold, norms that exceed 1 by their own rounding, and the float64 arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.base import arrays
from mllmrec_kernels.exact.score import LANES, TINY

# Rows a program encodes, entries a program scores, and the step over columns of the product, to which rows are padded.
ENCODED = 32
SCORED = 128
STEP = 64
UNROLLED = tl.constexpr(4)  # steps of a score whose loads can be in flight together
# Explicit because Triton's default changes; no result depends on it (see exact_dot).
FUSED = {"enable_fp_fusion": True}


@triton.jit
def exact_dot(
    x: tl.tensor, y: tl.tensor, live: tl.tensor, d: tl.tensor, B: tl.constexpr, UNROLL: tl.constexpr = 1
) -> tl.tensor:  # fmt: skip
    """Return float64 inner products of the rows that start at pointers x [B] and y [B], in the order of score.py."""
    lanes = tl.arange(0, 8)[None, :]
    sums = tl.zeros([B, 8], tl.float64)
    whole = d - d % 8
    for j in tl.range(0, whole, 8, loop_unroll_factor=UNROLL):
        left = tl.load(x[:, None] + j + lanes, mask=live[:, None], other=0.0).to(tl.float64)
        right = tl.load(y[:, None] + j + lanes, mask=live[:, None], other=0.0).to(tl.float64)
        sums += left * right
    fours = tl.sum(tl.reshape(sums, [B, 2, 4]), axis=1)  # s[0:4] + s[4:8]
    twos = tl.sum(tl.reshape(fours, [B, 2, 2]), axis=1)
    total = tl.sum(twos, axis=1)
    for j in range(whole, d):
        left = tl.load(x + j, mask=live, other=0.0).to(tl.float64)
        total += left * tl.load(y + j, mask=live, other=0.0).to(tl.float64)
    return total


@triton.jit
def pair_dots(
    x: tl.tensor, y: tl.tensor, x_rows: tl.tensor, y_rows: tl.tensor, out: tl.tensor, n: tl.tensor, d: tl.tensor,
    B: tl.constexpr,
) -> None:  # fmt: skip
    """Write out[p] = dot(x[x_rows[p]], y[y_rows[p]]), float64; x, y float32 [., d], rows int32 [n]."""
    p = tl.program_id(0) * B + tl.arange(0, B)
    live = p < n
    left = x + tl.load(x_rows + p, mask=live, other=0).to(tl.int64) * d
    right = y + tl.load(y_rows + p, mask=live, other=0).to(tl.int64) * d
    tl.store(out + p, exact_dot(left, right, live, d, B), mask=live)


@triton.jit
def encode_rows(
    x: tl.tensor, scale: tl.tensor, half: tl.tensor, rest: tl.tensor, n: tl.tensor, d: tl.tensor, D: tl.constexpr,
    B: tl.constexpr, STEP: tl.constexpr,
) -> None:  # fmt: skip
    """Write half [n, D] = float16(x scale), zeros beyond d, and rest [n] = |x scale - half|, float64."""
    row = tl.program_id(0) * B + tl.arange(0, B)
    live = row < n
    factor = tl.load(scale + row, mask=live, other=0.0)
    squares = tl.zeros([B], tl.float64)
    for start in range(0, D, STEP):
        c = start + tl.arange(0, STEP)
        inside = live[:, None] & (c < d)[None, :]
        exact = tl.load(x + row.to(tl.int64)[:, None] * d + c[None, :], mask=inside, other=0.0).to(tl.float64)
        exact *= factor[:, None]
        rounded = exact.to(tl.float32).to(tl.float16)
        tl.store(half + row.to(tl.int64)[:, None] * D + c[None, :], rounded, mask=live[:, None])
        lost = exact - rounded.to(tl.float64)
        squares += tl.sum(lost * lost, axis=1)
    tl.store(rest + row, tl.sqrt(squares), mask=live)


@triton.jit
def product(
    x: tl.tensor, y: tl.tensor, x_rows: tl.tensor, y_rows: tl.tensor, D: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return rows x_rows of x times rows y_rows of y, both float16 [., D]; float32 [BM, BN]."""
    c = tl.arange(0, BK)
    left = x + x_rows.to(tl.int64)[:, None] * D + c[None, :]
    right = y + y_rows.to(tl.int64)[:, None] * D + c[None, :]
    tile = tl.zeros([BM, BN], tl.float32)
    for _ in range(0, D, BK):
        tile = tl.dot(tl.load(left), tl.trans(tl.load(right)), tile, input_precision="ieee")
        left += BK
        right += BK
    return tile


def padded(d: int) -> int:
    """Round d up to a multiple of the product's step, the columns of an encoded row."""
    return -(-d // STEP) * STEP


def encode(x: Tensor, scale: Tensor, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Round scaled rows to float16.

    Args:
        x: float32 [n, d].
        scale: float64 [n].
        dead: bool [n], rows that become NaN, which no comparison lets through; None for none.

    Returns:
        float16 [n, padded d], and the norm that rounding took from each row, float64 [n].
    """
    n, d = x.shape
    half = torch.empty((n, padded(d)), dtype=torch.float16, device=x.device)
    rest = torch.empty(n, dtype=torch.float64, device=x.device)
    if n:
        encode_rows[(triton.cdiv(n, ENCODED),)](x, scale, half, rest, n, d, D=padded(d), B=ENCODED, STEP=STEP, **FUSED)
    if dead is not None:
        half.masked_fill_(dead[:, None], torch.nan)
    return half, rest


class Encoded:
    """Items in encoded chunks, made on demand; a single chunk that holds all of them is made once."""

    def __init__(self, y: Tensor, scale: Tensor, chunk: int, dead: Tensor | None = None) -> None:
        self.y, self.scale, self.chunk, self.dead = y, scale, chunk, dead
        self.starts = range(0, len(y), chunk)
        self.whole = encode(y, scale, dead) if chunk >= len(y) else None
        self.largest_rest = largest_of(torch.cat([largest_of(self.at(first)[1]) for first in self.starts]))

    def at(self, first: int) -> tuple[Tensor, Tensor]:
        """Return the chunk from item `first` on, float16 [chunk, padded d], and its rounding errors, float64."""
        if self.whole is not None:
            return self.whole
        part = slice(first, first + self.chunk)
        return encode(self.y[part], self.scale[part], None if self.dead is None else self.dead[part])


def dots(x: Tensor, y: Tensor, x_rows: Tensor, y_rows: Tensor) -> Tensor:
    """Return the inner products of row x_rows[p] of x with row y_rows[p] of y, float64 [n].

    Args:
        x: float32 [., d].
        y: float32 [., d].
        x_rows: int32 [n].
        y_rows: int32 [n].
    """
    n = len(x_rows)
    out = torch.empty(n, dtype=torch.float64, device=x.device)
    if n:
        pair_dots[(triton.cdiv(n, SCORED),)](x, y, x_rows, y_rows, out, n, x.shape[1], B=SCORED, **FUSED)
    return out


def norms(x: Tensor) -> Tensor:
    """Return |row|, float64 [n], the bits of score.norms: square roots are correctly rounded on both sides."""
    rows = torch.arange(len(x), dtype=torch.int32, device=x.device)
    return dots(x, x, rows, rows).sqrt_()


def inverse(lengths: Tensor) -> Tensor:
    """Return 1 / |row|, and 0 for a zero row; float64 [n]."""
    return torch.where(lengths > 0, 1.0 / lengths, torch.zeros_like(lengths))


def largest_of(values: Tensor) -> Tensor:
    """Return the largest of values that are not negative, 0 of none; shape [1]."""
    return torch.cat([values, values.new_zeros(1)]).amax(dim=0, keepdim=True)


def error_bound(rest_x: Tensor, largest_rest_y: Tensor, score_unit: Tensor, d: int) -> Tensor:
    """Bound |P - score / score_unit|, float64 [Q]; infinite if score_unit is 0.

    The last two terms: float32 scores lose precision below the smallest normal number, and so do products of float16
    rows.

    Args:
        rest_x: float64 [Q], rounding errors of the queries.
        largest_rest_y: float64 [1], the largest of the items.
        score_unit: float64 [Q], the score of two scaled rows whose product is 1.
        d: columns.
    """
    return rest_x + (1 + rest_x) * largest_rest_y + (d + 2 * LANES) * 2.0**-21 + d * 2.0**-126 + 2 * TINY / score_unit


def rounded_down(values: Tensor) -> Tensor:
    """Round float64 to float32, never upwards."""
    near = values.to(torch.float32)
    lower = torch.nextafter(near, torch.full_like(near, -torch.inf))
    return torch.where(near.to(torch.float64) > values, lower, near)


def rounded_up(values: Tensor) -> Tensor:
    """Round float64 to float32, never downwards."""
    return -rounded_down(-values)


def check_products(x: Tensor, y: Tensor) -> None:
    """Refuse vectors whose inner products may leave float32."""
    arrays.check_products(*(largest_of(norms(side)).cpu().numpy() for side in (x, y)))


def working_memory(device: torch.device, max_bytes: int | None) -> int:
    """Return `max_bytes`, or a quarter of the device's free memory if that is None."""
    if max_bytes is not None:
        return max_bytes
    return int(torch.cuda.mem_get_info(device)[0]) // 4 if device.type == "cuda" else arrays.MAX_BYTES
