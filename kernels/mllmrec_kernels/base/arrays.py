"""What every verb of vectors does at its door: shapes, dtypes, NaN, and where the result goes back to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError

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
    check_shape(name, array.shape, d)
    if not np.issubdtype(array.dtype, np.floating):
        raise KernelInputError(f"{name} must be floating; got {array.dtype}")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(name, out)
    return out


def check_shape(name: str, shape: Sequence[int], d: int | None) -> None:
    """Refuse what is not (rows, d), d at least 1, or has more rows than int32 ids can name."""
    if len(shape) != 2 or shape[1] == 0 or (d is not None and shape[1] != d):
        wanted = f"(rows, {'d' if d is None else d})"
        raise KernelInputError(f"{name} must have shape {wanted}; got {tuple(shape)}")
    if shape[0] >= 2**31:
        raise KernelInputError(f"{name} has {shape[0]} rows; ids are int32, so at most {2**31 - 1}")


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    bad: list[int] = []
    rows = max(1, 2**20 // array.shape[1])
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows]).all(axis=1)
        bad.extend((start + np.flatnonzero(~finite)).tolist())
    check_rows(name, bad)


def check_rows(name: str, bad: Sequence[int] | NDArray[np.int64]) -> None:
    """Refuse, by number, rows that hold NaN or infinity."""
    if len(bad):
        first = ", ".join(str(row) for row in bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        raise KernelInputError(f"{name} must be finite; {len(bad)} rows hold NaN or infinity: {first}")


def count(name: str, value: Any, *, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise KernelInputError(f"{name} must be an integer of at least {least}; got {value!r}")
    return int(value)


def memory(max_bytes: Any) -> int | None:
    """`max_bytes`, checked; None leaves it to the backend."""
    return None if max_bytes is None else count("max_bytes", max_bytes)


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


def on_device(name: str, array: Any, device: Any, *, d: int | None = None) -> Any:
    """`array` as a contiguous float32 tensor of shape (rows, d) on `device`; refused as `vectors` refuses.

    A tensor that is on the device already is checked there, and not copied where it is float32.
    """
    import torch

    if not (is_tensor(array) and array.device == device):
        return torch.from_numpy(vectors(name, array, d=d)).to(device)
    check_shape(name, array.shape, d)
    if not array.dtype.is_floating_point:
        raise KernelInputError(f"{name} must be floating; got {str(array.dtype).removeprefix('torch.')}")
    out = array.detach().to(torch.float32).contiguous()
    finite = [torch.isfinite(rows).all(dim=1) for rows in out.split(max(1, 2**24 // out.shape[1]))]
    check_rows(name, np.flatnonzero(~torch.cat(finite).cpu().numpy()) if finite else np.zeros(0, np.int64))
    return out


def back(array: Any, results: tuple[Any, ...]) -> tuple[Any, ...]:
    """Device tensors to where `array` lives: its device for a tensor, NumPy arrays otherwise."""
    if is_tensor(array):
        return tuple(result.to(array.device) for result in results)
    return tuple(result.cpu().numpy() for result in results)
