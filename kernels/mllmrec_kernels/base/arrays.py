"""Checks of the dense arguments of every verb: shapes, dtypes, NaN, and the library and device of the result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from typing_extensions import TypeIs

    ArrayLike: TypeAlias = NDArray[Any] | Tensor

Int8Array: TypeAlias = NDArray[np.int8]
Int32Array: TypeAlias = NDArray[np.int32]
Int64Array: TypeAlias = NDArray[np.int64]
Float32Array: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]

MAX_BYTES = 64 * 2**20  # working memory on the CPU where the caller names none
_NAMED_ROWS = 3
_CHECKED = 2**18  # entries looked at together


def is_tensor(array: object) -> TypeIs[Tensor]:
    """Tell if `array` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def as_numpy(name: str, array: ArrayLike) -> NDArray[Any]:
    """Return a NumPy array or a dense tensor as a NumPy array, without a copy where it lies on the host.

    Raises:
        KernelInputError: neither.
    """
    if is_tensor(array) and str(array.layout) == "torch.strided":
        return np.asarray(array.detach().cpu().numpy())
    if not isinstance(array, np.ndarray):
        raise KernelInputError(f"{name} must be a NumPy array or a dense torch tensor; got {type(array).__name__}")
    return array


def float32_rows(name: str, array: ArrayLike, *, d: int | None = None) -> NDArray[np.float32]:
    """Return `array` as C-contiguous float32 [rows, d]; float16 and float64 are converted, a copy.

    Args:
        name: the argument's name, for errors.
        array: floating [rows, d], NumPy or torch.
        d: the number of columns it must have; None for any above 0.

    Raises:
        KernelInputError: not two-dimensional, no columns, not floating, another d, or NaN or infinite rows.
    """
    array = as_numpy(name, array)
    check_shape(name, array.shape, d)
    if not np.issubdtype(array.dtype, np.floating):
        raise KernelInputError(f"{name} must be floating; got {array.dtype}")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(name, rows)
    return rows


def check_shape(name: str, shape: Sequence[int], d: int | None) -> None:
    """Refuse a shape other than (rows, d), with d at least 1, and more rows than int32 ids can name.

    Args:
        name: the argument's name.
        shape: its shape.
        d: the number of columns it must have; None for any above 0.
    """
    if len(shape) != 2 or shape[1] == 0 or (d is not None and shape[1] != d):
        expected = f"(rows, {'d' if d is None else d})"
        raise KernelInputError(f"{name} must have shape {expected}; got {tuple(shape)}")
    if shape[0] >= 2**31:
        raise KernelInputError(f"{name} has {shape[0]} rows; ids are int32, so at most {2**31 - 1}")


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    bad: list[int] = []
    rows = max(1, _CHECKED // array.shape[1])
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows]).all(axis=1)
        bad.extend((start + np.flatnonzero(~finite)).tolist())
    check_rows(name, bad)


def check_rows(name: str, bad: Sequence[int] | NDArray[np.int64]) -> None:
    """Refuse, by number, rows that hold NaN or infinity."""
    if len(bad):
        first = ", ".join(str(row) for row in bad[:_NAMED_ROWS]) + (", ..." if len(bad) > _NAMED_ROWS else "")
        raise KernelInputError(f"{name} must be finite; {len(bad)} rows hold NaN or infinity: {first}")


def as_count(name: str, value: object) -> int:
    """Return an integer of Python or NumPy, at least 1, as an int; `name` is the argument's, for errors."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise KernelInputError(f"{name} must be an integer of at least 1; got {value!r}")
    return int(value)


def as_bytes(max_bytes: int | None) -> int | None:
    """Return `max_bytes`, checked; None leaves it to the backend."""
    return None if max_bytes is None else as_count("max_bytes", max_bytes)


def check_products(left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Refuse vectors whose inner products may leave float32; takes the norms of both sides."""
    largest = float(left.max(initial=0.0)) * float(right.max(initial=0.0))
    if largest >= float(np.finfo(np.float32).max):
        raise KernelInputError(f"inner products reach {largest:.3g}, beyond float32; scale the vectors down")


def like(array: ArrayLike, result: NDArray[Any]) -> ArrayLike:
    """Return `result` in the library of `array`: a tensor on its device for a tensor, a NumPy array otherwise."""
    if not is_tensor(array):
        return result
    import torch

    return torch.from_numpy(result).to(array.device)


def tensor_like(array: ArrayLike, result: Tensor) -> ArrayLike:
    """Return a device tensor in the library of `array`: on its device for a tensor, a NumPy array otherwise."""
    if is_tensor(array):
        return result.to(array.device)
    return np.asarray(result.cpu().numpy())


def rows_on_device(name: str, array: ArrayLike, device: torch.device, *, d: int | None = None) -> Tensor:
    """Return `array` as a contiguous float32 tensor on `device`, refused as `float32_rows` refuses.

    A tensor that is on the device already is checked there, and not copied where it is float32.

    Args:
        name: the argument's name, for errors.
        array: floating [rows, d], NumPy or torch.
        device: where the result lies.
        d: the number of columns it must have; None for any above 0.
    """
    import torch

    if not (is_tensor(array) and array.device == device):
        return torch.from_numpy(float32_rows(name, array, d=d)).to(device)
    check_shape(name, array.shape, d)
    if not array.dtype.is_floating_point:
        raise KernelInputError(f"{name} must be floating; got {str(array.dtype).removeprefix('torch.')}")
    out = array.detach().to(torch.float32).contiguous()
    finite = [torch.isfinite(rows).all(dim=1) for rows in torch.split(out, max(1, 2**24 // out.shape[1]))]
    check_rows(name, np.flatnonzero(~torch.cat(finite).cpu().numpy()) if finite else np.zeros(0, np.int64))
    return out
