"""int8 rows that propose pairs on the device: at twice the rate of float16, with an exact integer product.

A row x is scaled to x̂ = x a of norm at most 1, rounded to float16 as x̃, and rotated by H: every BLOCKS-th number makes
a block of 128, and a Hadamard matrix over sqrt(128) turns each block. H is orthogonal, so Hx̂.Hŷ = x̂.ŷ, and the numbers
of a rotated row are alike in size. They become integers q of a fixed step s, cut at 127.

**The bound.** Let r(x) >= |Hx̂ - s q(x)|. With the exact integer product P = q(x).q(y), and |ŷ| <= 1,

    |s² P - x̂.ŷ| <= r(x) |ŷ| + |s q(x)| r(y)                                               (Cauchy-Schwarz)
                 <= r(x) + (1 + r(x)) r(y) <= loss(x) + loss(y),   loss = r + r² / 2

since r(x) r(y) <= (r(x)² + r(y)²) / 2. r is the sum of three norms.

1. |x̂ - x̃|, measured in float32, as is the third: 2^-12 of it covers the rounding of up to 2^11 additions.
2. What rotating x̃ loses. The numbers of H are signs before the division, so products are exact. Tensor cores may cut
   each of the at most 256 addends and partial sums of a number by 2^-23 of the largest (gpu_score.py), itself at most
   the sum of magnitudes, sqrt(128) |block|. Over the 128 numbers of a block, divided by sqrt(128), the norm is at most
   256 2^-23 sqrt(128) |block| < 3.5e-4 |block|. CUT is 4.9e-4. The rest stands for float32's rounding of x̂, of the
   division, of s q and of the score, and for norms that exceed 1 by their own rounding.
3. |z - s q| for the rotated row z as computed.

Losses are kept in units of s², rounded up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.exact import gpu_score

BLOCK = tl.constexpr(128)  # numbers that a rotation mixes; rows are padded to a multiple
CLIP = 4.6  # the largest integer stands for so many standard deviations of an even row
CUT = tl.constexpr(2.0**-11)
DEAD = tl.constexpr(2**29)  # beyond every product and threshold; three of them still fit int32
ENCODED = 32  # rows a program encodes


@triton.jit(do_not_specialize=["n"])
def encode_rows(
    x: tl.tensor, scale: tl.tensor, out: tl.tensor, loss: tl.tensor, largest: tl.tensor, n: tl.tensor, d: tl.tensor,
    WIDTH: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Write integers out [., D] of step WIDTH and loss int32 [.]; DEAD, negated, for a row of scale 0 or beyond n.

    x float32 [n, d]; scale float64 [n]; largest int32 [1]: raised to the largest loss of a row that is not dead.
    """
    rows = tl.program_id(0) * B + tl.arange(0, B)
    live = rows < n
    j = tl.arange(0, BLOCK)
    parity = j[:, None] & j[None, :]
    parity ^= parity >> 4
    parity ^= parity >> 2
    parity ^= parity >> 1
    signs = (1 - 2 * (parity & 1)).to(tl.float16)
    factor = tl.load(scale + rows, mask=live, other=0.0)
    rounding = tl.zeros([B], tl.float32)
    squares = tl.zeros([B], tl.float32)
    for block in tl.range(D // BLOCK, num_stages=1):
        c = j * (D // BLOCK) + block
        inside = live[:, None] & (c < d)[None, :]
        exact = tl.load(x + rows.to(tl.int64)[:, None] * d + c[None, :], mask=inside, other=0.0).to(tl.float64)
        near = (exact * factor[:, None]).to(tl.float32)
        half = near.to(tl.float16)
        lost = near - half.to(tl.float32)
        rounding += tl.sum(lost * lost, axis=1)
        z = tl.dot(half, signs) * 0.08838834764831845  # 1 / sqrt(128)
        q = tl.minimum(tl.maximum(tl.floor(z / WIDTH + 0.5), -127.0), 127.0)
        rest = z - q * WIDTH
        squares += tl.sum(rest * rest, axis=1)
        tl.store(out + rows.to(tl.int64)[:, None] * D + (j + block * BLOCK)[None, :], q.to(tl.int8))
    r = (tl.sqrt(rounding) + tl.sqrt(squares)).to(tl.float64) * (1 + 2.0**-12) + CUT
    units = (tl.ceil((r + 0.5 * r * r) / (WIDTH * WIDTH)) + 1.0).to(tl.int32)
    dead = factor == 0.0
    tl.store(loss + rows, tl.where(dead, -DEAD, units))
    tl.atomic_max(largest, tl.max(tl.where(dead, 0, units), axis=0))


def padded(d: int) -> int:
    """Round d up to a multiple of the rotation's blocks."""
    block: int = BLOCK.value
    return -(-d // block) * block


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Rows in int8.

    Attributes:
        q: int8 [padded n, padded d]; zeros from row n on.
        loss: int32 [padded n], in units of step²; -DEAD for a row without a score and from row n on.
        largest: int32 [1], the largest loss of the others.
        step: what 1 stands for in a rotated row of norm 1.
    """

    q: Tensor
    loss: Tensor
    largest: Tensor
    step: float


def encode(x: Tensor, scale: Tensor, multiple: int) -> Int8Rows:
    """Rotate scaled rows and round them to int8.

    Args:
        x: float32 [n, d].
        scale: float64 [n], makes rows of norm at most 1; 0 for a row that has no score.
        multiple: n is padded to a multiple of it, and by as many rows again; a multiple of ENCODED.
    """
    (n, d), width = x.shape, padded(x.shape[1])
    height = (-(-n // multiple) + 1) * multiple
    step = float(np.float32(CLIP / 127 / math.sqrt(width)))
    q = torch.empty((height, width), dtype=torch.int8, device=x.device)
    loss = torch.empty(height, dtype=torch.int32, device=x.device)
    largest = torch.zeros(1, dtype=torch.int32, device=x.device)
    encode_rows[(height // ENCODED,)](
        x, scale, q, loss, largest, n, d, WIDTH=step, D=width, B=ENCODED, **gpu_score.FUSED
    )  # fmt: skip
    return Int8Rows(q, loss, largest, step)
