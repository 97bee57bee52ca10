"""What every verb of vectors does at its door: shapes, dtypes, NaN, and where the result goes back to."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.csr import CSR
from mllmrec_kernels.errors import KernelInputError

MAX_BYTES = 64 * 2**20
_NAMED = 3


def is_tensor(array: Any) -> bool:
    """Whether `array` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def vectors(name: str, array: Any, *, d: int | None = None) -> NDArray[np.float32]:
    """`array` as C-contiguous float32 of shape (rows, d); float16 and float64 are converted, a copy.

    Raises:
        KernelInputError: not two-dimensional, no columns, not floating, another d, or NaN or infinite rows.
    """
    if is_tensor(array):
        array = array.detach().cpu().numpy()
    array = np.asarray(array)
    if array.ndim != 2 or array.shape[1] == 0 or (d is not None and array.shape[1] != d):
        wanted = f"(rows, {'d' if d is None else d})"
        raise KernelInputError(f"{name} must have shape {wanted}; got {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise KernelInputError(f"{name} must be floating; got {array.dtype}")
    if len(array) >= 2**31:
        raise KernelInputError(f"{name} has {len(array)} rows; ids are int32, so at most {2**31 - 1}")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(name, out)
    return out


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    bad: list[int] = []
    rows = max(1, 2**20 // array.shape[1])
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows]).all(axis=1)
        bad.extend((start + np.flatnonzero(~finite)).tolist())
    if bad:
        first = ", ".join(str(row) for row in bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        raise KernelInputError(f"{name} must be finite; {len(bad)} rows hold NaN or infinity: {first}")


def count(name: str, value: Any, *, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise KernelInputError(f"{name} must be an integer of at least {least}; got {value!r}")
    return int(value)


def csr(name: str, matrix: Any, shape: tuple[int, int]) -> CSR:
    """`matrix`, checked to be a CSR of that shape."""
    if not isinstance(matrix, CSR):
        raise KernelInputError(f"{name} must be a mllmrec_kernels CSR; got {type(matrix).__name__}")
    if matrix.shape != shape:
        raise KernelInputError(f"{name} must have shape {shape}; got {matrix.shape}")
    return matrix


def check_products(left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Refuse vectors whose inner products may leave float32; takes the norms of both sides."""
    largest = float(left.max(initial=0.0)) * float(right.max(initial=0.0))
    if largest >= float(np.finfo(np.float32).max):
        raise KernelInputError(f"inner products reach {largest:.3g}, beyond float32; scale the vectors down")


def like(array: Any, results: tuple[NDArray[Any], ...]) -> tuple[Any, ...]:
    """The results where `array` lives: torch tensors on its device for a tensor, NumPy arrays otherwise."""
    if not is_tensor(array):
        return results
    torch = sys.modules["torch"]
    return tuple(torch.from_numpy(result).to(array.device) for result in results)
