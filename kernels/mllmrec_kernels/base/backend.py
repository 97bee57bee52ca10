"""The only place where a backend is chosen; the rest of the package cannot tell backends apart.

`auto` goes by where the data lives: CUDA tensors to the GPU backends, everything else to the CPU ones.
A backend asked for by name never falls back: it runs or raises BackendUnavailableError.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from mllmrec_kernels.base.errors import BackendUnavailableError, KernelInputError

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
    """Whether Triton's kernels run in its interpreter, which is settled when it is imported."""
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
    """Why `backend` cannot run on this machine; empty where it can."""
    return _PROBES[backend]()


def available() -> dict[str, bool]:
    """Each backend's name and whether it runs here."""
    return {name: not missing(name) for name in _PROBES}


def is_cuda(array: Any) -> bool:
    """Whether `array` is a torch tensor on a CUDA device; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor) and array.is_cuda


def choose(requested: str, array: Any, *, cpu: Sequence[str], gpu: Sequence[str]) -> str:
    """The backend that runs this call.

    Args:
        requested: "auto", or a backend's name.
        array: the first array argument; `auto` goes by where it lives.
        cpu: the op's CPU backends, best first.
        gpu: the op's CUDA backends, best first.

    Raises:
        KernelInputError: the op has no backend of that name.
        BackendUnavailableError: it has, but it cannot run here.
    """
    offered = (*cpu, *gpu, "reference")
    if requested == "auto":
        wanted = gpu if is_cuda(array) else cpu
        for name in wanted:
            if not missing(name):
                return name
        reasons = "; ".join(f"{name}: {missing(name)} ({INSTALL[name]})" for name in wanted)
        raise BackendUnavailableError(f"no backend can run this call: {reasons}")
    if requested not in offered:
        raise KernelInputError(f"backend {requested!r} is not one of auto, {', '.join(dict.fromkeys(offered))}")
    if missing(requested):
        raise BackendUnavailableError(f"backend {requested!r}: {missing(requested)}; {INSTALL[requested]}")
    return requested


def device_of(array: Any) -> Any:
    """The torch device on which a Triton backend runs for `array`: its own, else the current CUDA device.

    Under Triton's interpreter, on a machine without CUDA, that is the CPU.
    """
    import torch

    if is_cuda(array):
        return array.device
    return torch.device("cuda", torch.cuda.current_device()) if _has_cuda_torch() else torch.device("cpu")


def on(device: Any) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one, which is where Triton launches; nothing to do for the CPU."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
