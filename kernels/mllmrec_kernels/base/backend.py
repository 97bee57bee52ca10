"""Choose the backend, only in this module; the rest of the package cannot tell backends apart.

`auto` goes by where the data lives: CUDA tensors to the GPU backends, everything else to the CPU ones.
A backend named by the caller never falls back: it runs or raises BackendUnavailableError.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from mllmrec_kernels.base.errors import BackendUnavailableError, KernelInputError

if TYPE_CHECKING:
    import torch

INSTALL = {
    "numba": "pip install numba",
    "torch": "pip install torch",
    "triton": "pip install triton (it comes with torch's CUDA build)",
    "cupy": "pip install 'mllmrec[cuda]'",
}


def _has_cuda_torch() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def triton_interprets() -> bool:
    """Tell if Triton's kernels run in its interpreter, which is settled when it is imported."""
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not (triton_interprets() or _has_cuda_torch()):
        return "no CUDA device is visible"
    return ""


def _cupy() -> str:
    # CuPy imports without a driver; only its runtime knows whether a device answers.
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed"
    import cupy

    return "" if cupy.cuda.is_available() else "no CUDA device is visible"


def _installed(module: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(module) else f"{module} is not installed"


_PROBES: dict[str, Callable[[], str]] = {
    "reference": lambda: "",
    "numba": _installed("numba"),
    "torch": _installed("torch"),
    "triton": _triton,
    "cupy": _cupy,
}


@cache
def missing(backend: str) -> str:
    """Return the reason why `backend` cannot run on this machine; empty if it can."""
    return _PROBES[backend]()


def available() -> dict[str, bool]:
    """Return each backend's name, and if it runs here."""
    return {name: not missing(name) for name in _PROBES}


def is_cuda(array: object) -> bool:
    """Tell if `array` is a torch tensor on a CUDA device, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor) and array.is_cuda


def choose(requested: str, array: object, *, cpu: Sequence[str], gpu: Sequence[str]) -> str:
    """Return the name of the backend that runs this call.

    Args:
        requested: "auto", or a backend's name.
        array: the first array argument; `auto` goes by the device it is on.
        cpu: the op's CPU backends, best first.
        gpu: the op's CUDA backends, best first.

    Raises:
        KernelInputError: the op has no backend of that name.
        BackendUnavailableError: the op has one, but it cannot run here.
    """
    offered = (*cpu, *gpu, "reference")
    if requested == "auto":
        candidates = gpu if is_cuda(array) else cpu
        for name in candidates:
            if not missing(name):
                return name
        reasons = "; ".join(f"{name}: {missing(name)} ({INSTALL[name]})" for name in candidates)
        raise BackendUnavailableError(f"no backend can run this call: {reasons}")
    if requested not in offered:
        raise KernelInputError(f"backend {requested!r} is not one of auto, {', '.join(dict.fromkeys(offered))}")
    if missing(requested):
        raise BackendUnavailableError(f"backend {requested!r}: {missing(requested)}; {INSTALL[requested]}")
    return requested


def device_of(array: Any) -> torch.device:
    """Return the torch device on which a Triton backend runs for `array`: its own, else the current CUDA device.

    Under Triton's interpreter, on a machine without CUDA, that is the CPU.
    """
    import torch

    if is_cuda(array):
        device: torch.device = array.device
        return device
    return torch.device("cuda", torch.cuda.current_device()) if _has_cuda_torch() else torch.device("cpu")


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, where Triton launches; do nothing for the CPU."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
