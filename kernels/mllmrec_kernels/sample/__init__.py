"""Negative items for pairwise training."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.arrays import as_numpy, is_tensor, like, tensor_like
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.sample import reference

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike


@overload
def sample_negatives(
    user_items: SparseLike,
    users: NDArray[np.integer],
    *,
    generator: np.random.Generator | Generator,
    backend: str = "auto",
) -> NDArray[np.int32]: ...


@overload
def sample_negatives(
    user_items: SparseLike, users: Tensor, *, generator: np.random.Generator | Generator, backend: str = "auto"
) -> Tensor: ...


def sample_negatives(
    user_items: SparseLike, users: ArrayLike, *, generator: np.random.Generator | Generator, backend: str = "auto"
) -> ArrayLike:
    """Draw one item per user, uniform over the items seen by anyone but not by this user (docs/method.md, 5).

    An item is seen that has at least one entry in `user_items`. One number is taken from the generator per call; all
    backends make the same samples from it, for any number of threads.

    Args:
        user_items: sparse [U, I], training interactions; only the pattern is read. Pass a CSR if you call often:
            what is derived from it is kept as long as it lives.
        users: int32 or int64 [B], NumPy or torch; repeated users draw independently.
        generator: a numpy.random.Generator or a torch.Generator.
        backend: "auto", "numba", "triton" or "reference".

    Returns:
        int32 [B], in the library and on the device of `users`. It is -1 for a user who has seen every seen item: a
        trainer drops those samples (`negatives >= 0`), since there is nothing to rank below their items.

    Raises:
        KernelInputError: `users` is not an integer vector or names a user outside [0, U).
        BackendUnavailableError: the named backend cannot run here.
    """
    matrix = as_csr("user_items", user_items, binary=True)
    chosen = backends.choose(backend, users, cpu=("numba",), gpu=("triton",))
    if chosen == "triton":
        return _on_device(matrix, users, generator)
    rows = as_numpy("users", users)
    _check(matrix, rows)
    seed = _seed(generator)
    if chosen == "reference":
        return like(users, reference.sample_negatives(matrix, rows, seed))
    from mllmrec_kernels.sample import cpu

    return like(users, cpu.sample_negatives(matrix, rows, seed))


def _on_device(user_items: CSR, users: ArrayLike, generator: np.random.Generator | Generator) -> ArrayLike:
    import torch

    from mllmrec_kernels.sample import gpu

    device = backends.device_of(users)
    rows = users.to(device) if is_tensor(users) else torch.from_numpy(as_numpy("users", users)).to(device)
    _check_tensor(user_items, rows)
    if isinstance(generator, torch.Generator) and generator.device == device:
        seed = _random_number(generator)
    else:
        seed = torch.tensor([_seed(generator)], device=device)
    with backends.on(device):
        negatives = gpu.sample_negatives(user_items, rows, seed)
    return tensor_like(users, negatives)


def _check_tensor(user_items: CSR, users: Tensor) -> None:
    """Refuse what `_check` refuses, for a tensor on a device; this waits for the device once."""
    import torch

    dtype = str(users.dtype).removeprefix("torch.")
    if users.ndim != 1 or dtype not in ("int32", "int64"):
        raise KernelInputError(f"users must be int32 or int64 [B]; got {dtype} {tuple(users.shape)}")
    if len(users):
        least, most = torch.stack(torch.aminmax(users)).tolist()
        if not (least >= 0 and most < user_items.n_rows):
            raise KernelInputError(f"users must lie in [0, {user_items.n_rows}); got [{least}, {most}]")


def _seed(generator: np.random.Generator | Generator) -> int:
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**63))
    return int(_random_number(generator))


def _random_number(generator: Generator) -> Tensor:
    """Draw one number below 2^63 - 1 on the generator's device, int64 [1]."""
    import torch

    return torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device, dtype=torch.int64)


def _check(user_items: CSR, users: NDArray[np.integer]) -> None:
    if users.ndim != 1 or users.dtype not in (np.int32, np.int64):
        raise KernelInputError(f"users must be int32 or int64 [B]; got {users.dtype} {users.shape}")
    if len(users) and not (int(users.min()) >= 0 and int(users.max()) < user_items.n_rows):
        raise KernelInputError(f"users must lie in [0, {user_items.n_rows}); got [{users.min()}, {users.max()}]")
