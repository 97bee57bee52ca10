"""The score of a pair, the same bits in topk and rank and on every backend.

    score(x, y) = float32( dot(x, y) * (a * b) ),     dot in float64, in a fixed order of summation

with a = b = 1 for an inner product and a = 1 / |x|, b = 1 / |y| for a cosine. The product of two float32
numbers is exact in float64, so a fused multiply-add and a plain one agree. Only the order of summation is left to
fix, and `dot` fixes it: the same pair gives the same bits in NumPy, Numba and Triton, in any block, on any number of
threads. Equal rows therefore tie, and ties go to the lower id.

A fast product (float32, float16, int8) chooses the pairs to score, under a proven bound of its error. It never
supplies a score. `float32_error` is that bound for a float32 product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from mllmrec_kernels.base.jit import CodeGenerator, intrinsic, jit

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature
from numpy.typing import NDArray

LANES = 8
# Half of the last float32 step above zero, and the step that flushing to zero would make of it.
TINY = 2.0**-149
FLUSHED = 2.0**-126


@intrinsic
def _dot_at(
    typing_context: Context, x: types.Array, x_at: types.Type, y: types.Array, y_at: types.Type, d: types.Type,
) -> tuple[Signature, CodeGenerator]:  # fmt: skip
    """Sum d float32 products from entry x_at of array x and entry y_at of array y on, in the order of `dot`.

    Written as instructions: the compiler's own vectorizer keeps the eight sums apart, at three times the time.
    """
    signature = types.float64(x, types.int64, y, types.int64, types.int64)

    def _generate(
        context: BaseContext, b: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        single, wide = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.DoubleType()))
        starts = [
            b.gep(context.make_array(signature.args[n])(context, b, arguments[n]).data, [arguments[n + 1]])
            for n in (0, 2)
        ]
        kind = ir.FunctionType(wide, [wide] * 3)
        add = cgutils.get_or_insert_function(b.module, kind, f"llvm.fma.v{LANES}f64")
        sums = cgutils.alloca_once_value(b, ir.Constant(wide, [0.0] * LANES))
        with cgutils.for_range(b, b.sdiv(arguments[4], ir.Constant(ir.IntType(64), LANES))) as loop:
            left, right = (
                b.fpext(b.load(b.gep(b.bitcast(p, single.as_pointer()), [loop.index]), align=4), wide) for p in starts
            )
            b.store(b.call(add, [left, right, b.load(sums)]), sums)
        lanes = [b.extract_element(b.load(sums), ir.Constant(ir.IntType(32), n)) for n in range(LANES)]
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [b.fadd(x, y) for x, y in zip(lanes[:half], lanes[half:], strict=True)]
        return lanes[0]

    return signature, _generate


@jit
def dot(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Return the inner product in float64: eight interleaved sums, folded by halves, then the tail.

    Args:
        x: float32, shape (d,), contiguous.
        y: float32, shape (d,), contiguous.
    """
    total: float = _dot_at(x, 0, y, 0, len(x))
    for j in range(len(x) - len(x) % LANES, len(x)):
        total += np.float64(x[j]) * np.float64(y[j])
    return total


@jit
def dot_rows(x: NDArray[np.float32], i: int, y: NDArray[np.float32], j: int) -> float:
    """Return `dot` of row i of x and row j of y, both contiguous float32 [., d], without slicing them."""
    d = x.shape[1]
    total: float = _dot_at(x, i * d, y, j * d, d)
    for c in range(d - d % LANES, d):
        total += np.float64(x[i, c]) * np.float64(y[j, c])
    return total


def dot_reference(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return `dot` of every row of x with every row of y in plain NumPy, the same bits; float64 [Q, I].

    Args:
        x: float32, shape (Q, d).
        y: float32, shape (I, d).
    """
    q, t = x.astype(np.float64)[:, None, :], y.astype(np.float64)[None, :, :]
    whole = x.shape[1] - x.shape[1] % LANES
    lanes = np.zeros((len(x), len(y), LANES))  # [Q, I, LANES]
    for j in range(0, whole, LANES):
        lanes += q[..., j : j + LANES] * t[..., j : j + LANES]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    total: NDArray[np.float64] = lanes[..., 0]
    for j in range(whole, x.shape[1]):
        total = total + q[..., j] * t[..., j]
    return total


def norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return |row| by `dot`; float64 [N]."""
    squares = np.empty(len(vectors))
    _squares(vectors, squares)
    return np.sqrt(squares, out=squares)


def inverse_norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return 1 / |row|, and 0 for a zero row, which has no cosine; float64 [N]."""
    lengths = norms(vectors)
    return np.divide(1.0, lengths, out=np.zeros(len(vectors)), where=lengths > 0)


@jit
def _squares(vectors: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    for i in range(len(vectors)):
        out[i] = dot(vectors[i], vectors[i])


def float32_error(d: int) -> float:
    """Bound |float32 product - score| for rows of norm at most 1 and d columns, in any order of summation.

    A float32 sum of d products is off by at most gamma_d |x||y| with gamma_n = n u / (1 - n u), u = 2^-24
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1: any order, fused or not).
    Eight more roundings stand for scaling x and y, rounding the score and its threshold to float32, and as many
    again for norms that exceed 1 by those roundings and for the float64 arithmetic.
    """
    n = (d + 8) * 2.0**-24
    return n / (1.0 - n) if n < 0.5 else float("inf")


def unit_rows(
    vectors: NDArray[np.float32], scale: NDArray[np.float64], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Multiply rows by their scale in float64 and round to float32.

    Args:
        vectors: float32 [N, d].
        scale: float64 [N].
        out: float32 [N, d] for the result; None allocates it.

    Returns:
        float32 [N, d].
    """
    if out is None:
        out = np.empty_like(vectors)
    np.multiply(vectors, scale[:, None], out=out, casting="same_kind")
    return out
