"""Propagation of NumPy features, on any backend."""

from __future__ import annotations

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.propagate import reference
from mllmrec_kernels.propagate.reference import Floats


def propagate(graph: CSR, features: Floats, layers: int, combine: str, backend: str) -> Floats:
    """Return the combined layers, [N, d], in the dtype of the features.

    Args:
        graph: [N, N].
        features: [N, d]; checked here, the other arguments by the verb.
        layers: L >= 0.
        combine: "sum", "mean" or "last".
        backend: "auto" or a backend's name.
    """
    check_features(graph, features.shape, str(features.dtype))
    chosen = choose(backend, features)
    if chosen == "reference":
        return reference.propagate(graph, features, layers, combine)
    if chosen == "triton":
        return _on_device(graph, features, layers, combine)
    if chosen == "torch":
        import torch

        from mllmrec_kernels.propagate import torch_op

        tensor = torch.from_numpy(features)
        result: Floats = torch_op.by_torch(torch_op.as_torch_csr(graph, tensor), tensor, layers, combine).numpy()
        return result
    from mllmrec_kernels.propagate import cpu

    return cpu.propagate(graph, features, layers, combine)


def choose(backend: str, features: object) -> str:
    """Return the backend that propagates these features."""
    return backends.choose(backend, features, cpu=("numba", "torch"), gpu=("triton", "torch"))


def check_features(graph: CSR, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse features that are not float32 or float64 [N, d].

    Args:
        graph: [N, N].
        shape: of the features.
        dtype: of the features, as its library writes it.
    """
    if len(shape) != 2 or shape[0] != graph.n_rows:
        raise KernelInputError(f"features must have shape ({graph.n_rows}, d); got {tuple(shape)}")
    if dtype.removeprefix("torch.") not in ("float32", "float64"):
        raise KernelInputError(f"features must be float32 or float64; got {dtype}")


def _on_device(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    import torch

    from mllmrec_kernels.propagate import gpu

    device = backends.device_of(features)
    copy = gpu.DeviceGraph.of(graph, device)
    with backends.on(device):
        result: Floats = gpu.propagate(copy, torch.from_numpy(features).to(device), layers, combine).cpu().numpy()
    return result
