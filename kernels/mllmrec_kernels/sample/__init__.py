"""Negative items for pairwise training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.sample import reference

if TYPE_CHECKING:
    from torch import Generator, Tensor


@overload
def sample_negatives(
    user_items: CSR,
    users: NDArray[np.integer],
    *,
    generator: np.random.Generator | Generator,
    backend: str = "auto",
) -> NDArray[np.int32]: ...


@overload
def sample_negatives(
    user_items: CSR, users: Tensor, *, generator: np.random.Generator | Generator, backend: str = "auto"
) -> Tensor: ...


def sample_negatives(
    user_items: CSR, users: Any, *, generator: np.random.Generator | Generator, backend: str = "auto"
) -> Any:
    """One item a user, uniform over the items seen by anybody but not by this user (method 2.8, issue 3).

    "Seen" is having at least one entry in `user_items`. One number is taken from the generator a call; all
    backends make the same samples from it, for any number of threads.

    Args:
        user_items: U x I training interactions; only the pattern is read.
        users: int32 or int64, shape (B,), NumPy or torch; repeated users draw independently.
        generator: a numpy.random.Generator or a torch.Generator.
        backend: "auto", "numba", "triton" or "reference".

    Returns:
        int32 [B], where `users` lives. **-1 for a user who has seen every seen item**: a trainer drops those
        samples (`negatives >= 0`), since there is nothing to rank below their items.

    Raises:
        KernelInputError: `users` is not an integer vector or names a user outside [0, U).
        BackendUnavailableError: the backend asked for cannot run here.
    """
    chosen = backends.choose(backend, users, cpu=("numba",), gpu=("triton",))
    if chosen == "triton":
        return _on_device(user_items, users, generator)
    if not isinstance(users, np.ndarray):
        import torch

        drawn = sample_negatives(user_items, users.cpu().numpy(), generator=generator, backend=chosen)
        return torch.from_numpy(drawn).to(users.device)
    _check(user_items, users)
    seed = _seed(generator)
    if chosen == "reference":
        return reference.sample_negatives(user_items, users, seed)
    from mllmrec_kernels.sample import cpu

    return cpu.sample_negatives(user_items, users, seed)


def _on_device(user_items: CSR, users: Any, generator: Any) -> Any:
    import torch

    from mllmrec_kernels.sample import gpu

    device = backends.device_of(users)
    asked = torch.from_numpy(users).to(device) if isinstance(users, np.ndarray) else users.to(device)
    _check_tensor(user_items, asked)
    if isinstance(generator, torch.Generator) and generator.device == device:
        seed = _drawn(generator)
    else:
        seed = torch.tensor([_seed(generator)], device=device)
    with backends.on(device):
        drawn = gpu.sample_negatives(user_items, asked, seed)
    return drawn.cpu().numpy() if isinstance(users, np.ndarray) else drawn.to(users.device)


def _check_tensor(user_items: CSR, users: Tensor) -> None:
    """What `_check` refuses, of a tensor on a device; it waits for the device once."""
    import torch

    dtype = str(users.dtype).removeprefix("torch.")
    if users.ndim != 1 or dtype not in ("int32", "int64"):
        raise KernelInputError(f"users must be int32 or int64 [B]; got {dtype} {tuple(users.shape)}")
    if len(users):
        least, most = torch.stack(torch.aminmax(users)).tolist()
        if not (least >= 0 and most < user_items.n_rows):
            raise KernelInputError(f"users must lie in [0, {user_items.n_rows}); got [{least}, {most}]")


def _seed(generator: Any) -> int:
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**63))
    return int(_drawn(generator))


def _drawn(generator: Generator) -> Tensor:
    """One number below 2^63 - 1 on the generator's device, int64 [1]."""
    import torch

    return torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device, dtype=torch.int64)


def _check(user_items: CSR, users: NDArray[np.integer]) -> None:
    if users.ndim != 1 or users.dtype not in (np.int32, np.int64):
        raise KernelInputError(f"users must be int32 or int64 [B]; got {users.dtype} {users.shape}")
    if len(users) and not (int(users.min()) >= 0 and int(users.max()) < user_items.n_rows):
        raise KernelInputError(f"users must lie in [0, {user_items.n_rows}); got [{users.min()}, {users.max()}]")
