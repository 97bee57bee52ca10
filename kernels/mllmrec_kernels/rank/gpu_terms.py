"""Rows as one or two float16 terms, and a bound on their product: what rank/gpu_tiles.py multiplies.

A row x is scaled to x̂ = x a of norm at most 1, as in exact/gpu_score.py. Its first term is h = float16(x̂). The second,
l = float16(x̂ - h), holds most of what the first lost. r(x) = |x̂ - h - l| is measured in float64; without a second
term l = 0. The product P adds h.l', then l.h', then h.h'. Without l.l', it differs by

    |P - x̂.ŷ| <= |l| |l'| + r(x) + (1 + r(x)) r(y) + what the tensor cores cut              (Cauchy-Schwarz)

They cut (d + 16) 2^-21 at most, for the reasons of exact/gpu_score.py: while the two small products are added, no
number exceeds 2^-9. So their 4 d addends and partial sums lose at most 4 d 2^-23 2^-9 = d 2^-30 more. Of rows of 64
columns, one term leaves about 5e-4, and two leave 4e-5. The cut, which grows with d, is then nearly all of it. So
beyond 64 columns a second term spares too few undecided items for three products in the place of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.exact import gpu_score

HELD = 128  # columns up to which a program holds its rows of users
BOTH = 64  # columns up to which rows have two terms; with 128, 128 columns take 28 ms on an H200, not 20


@triton.jit
def encode_terms(
    x: tl.tensor, ids: tl.tensor, scale: tl.tensor, first: tl.tensor, second: tl.tensor, rest: tl.tensor,
    size: tl.tensor, n: tl.tensor, rows: tl.tensor, d: tl.tensor, TWO: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
    STEP: tl.constexpr,
) -> None:  # fmt: skip
    """Write the terms of x[ids] scale, float16 [rows, D], zeros beyond d, NaN beyond n; rest and size float64 [n].

    x float32 [., d]; ids int32, scale float64 [n]. rest is |x scale - first - second|, size is |second|; second is not
    written unless TWO.
    """
    row = tl.program_id(0) * B + tl.arange(0, B)
    live = row < n
    factor = tl.load(scale + row, mask=live, other=0.0)
    source = x + tl.load(ids + row, mask=live, other=0).to(tl.int64) * d
    lost, small = tl.zeros([B], tl.float64), tl.zeros([B], tl.float64)
    for start in range(0, D, STEP):
        c = start + tl.arange(0, STEP)
        inside = live[:, None] & (c < d)[None, :]
        left = tl.load(source[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float64)
        left *= factor[:, None]
        term, at = left.to(tl.float32).to(tl.float16), row.to(tl.int64)[:, None] * D + c[None, :]
        tl.store(first + at, tl.where(live[:, None], term, float("nan")), mask=(row < rows)[:, None])
        left -= term.to(tl.float64)
        if TWO:
            term = left.to(tl.float32).to(tl.float16)
            tl.store(second + at, term, mask=(row < rows)[:, None])
            small += tl.sum(term.to(tl.float64) * term.to(tl.float64), axis=1)
            left -= term.to(tl.float64)
        lost += tl.sum(left * left, axis=1)
    tl.store(rest + row, tl.sqrt(lost), mask=live)
    tl.store(size + row, tl.sqrt(small), mask=live)


@dataclass(frozen=True, slots=True)
class Terms:
    """Encoded rows.

    Attributes:
        first: float16 [rows, padded d].
        second: the same; `first` itself where rows have one term.
        rest: float64 [n], the norm that rounding took from each row.
        size: float64 [n], the norm of the second term.
    """

    first: Tensor
    second: Tensor
    rest: Tensor
    size: Tensor


def is_held(d: int) -> bool:
    """Tell whether a program holds rows of d columns."""
    return d <= HELD


def has_two(d: int) -> bool:
    """Tell whether rows of d columns have two terms."""
    return d <= BOTH


def padded(d: int) -> int:
    """Return the columns of an encoded row: a power of two, or a multiple of the product's step."""
    return triton.next_power_of_2(max(d, 16)) if is_held(d) else gpu_score.padded(d)


def row_bytes(d: int) -> int:
    """Return the bytes of an encoded row, with its id and its two norms."""
    return 2 * padded(d) * (1 + has_two(d)) + 20


def encode(x: Tensor, ids: Tensor, scale: Tensor, multiple: int = 1) -> Terms:
    """Round rows of x, scaled.

    Args:
        x: float32 [., d].
        ids: int32 [n], the rows.
        scale: float64 [n].
        multiple: the number of rows is rounded up to this one; rows beyond n are NaN.
    """
    n, d = len(ids), x.shape[1]
    rows, two = -(-n // multiple) * multiple, has_two(d)
    first = torch.empty((rows, padded(d)), dtype=torch.float16, device=x.device)
    second = torch.empty_like(first) if two else first
    rest, size = (torch.empty(n, dtype=torch.float64, device=x.device) for _ in range(2))
    if n:
        encode_terms[(triton.cdiv(rows, gpu_score.ENCODED),)](
            x, ids, scale, first, second, rest, size, n, rows, d, TWO=two, D=padded(d), B=gpu_score.ENCODED,
            STEP=min(padded(d), gpu_score.STEP), **gpu_score.FUSED,
        )  # fmt: skip
    return Terms(first, second, rest, size)


class Items:
    """Items in encoded chunks, made on demand; a single chunk that holds all of them is made once.

    Args:
        y: float32 [I, d], with at least one row.
        scale: float64 [1], the inverse of the largest norm.
        chunk: items of a chunk.
        multiple: as in `encode`.
    """

    def __init__(self, y: Tensor, scale: Tensor, chunk: int, multiple: int) -> None:
        self.y, self.scale, self.multiple = y, scale, multiple
        self.starts = range(0, len(y), chunk)
        ids = torch.arange(len(y), dtype=torch.int32, device=y.device)
        self.ids = [ids[first : first + chunk] for first in self.starts]
        self.whole = self._encode(0) if len(self.ids) == 1 else None
        largest = [self._largest(part) for part in range(len(self.ids))]
        self.rest, self.size = (gpu_score.largest_of(torch.cat(norms)) for norms in zip(*largest, strict=True))

    def _encode(self, part: int) -> Terms:
        ids = self.ids[part]
        return encode(self.y, ids, self.scale.expand(len(ids)).contiguous(), self.multiple)

    def _largest(self, part: int) -> tuple[Tensor, Tensor]:
        terms = self.at(part)
        return gpu_score.largest_of(terms.rest), gpu_score.largest_of(terms.size)

    def at(self, part: int) -> Terms:
        """Return a chunk; it holds the items from starts[part] on."""
        return self._encode(part) if self.whole is None else self.whole

    def error(self, x: Terms, unit: Tensor) -> Tensor:
        """Bound |P - score / unit| for each encoded row, float64 [n]; infinite if its unit is 0.

        Args:
            x: rows of users.
            unit: float64 [n], the score of two scaled rows whose product is 1.
        """
        d = self.y.shape[1]
        return gpu_score.error_bound(x.rest, self.rest, unit, d) + x.size * self.size + d * 2.0**-30
