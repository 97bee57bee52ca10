"""sample_negatives in Triton: the random bits of reference.py, the binary search of cpu.py, one lane per sample.

    z_b = splitmix64(seed + (b + 1) G);   r = floor(z_b n / 2^64), n = S - d_u;   the r-th seen item outside row u

Bytes per sample: 4 written, about 8 (log2 d_u + 4) gathered. Bound by the latency of the search.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.gpu_score import FUSED
from mllmrec_kernels.sample.cpu import number_items

SAMPLES = 256


@triton.jit
def sample_rows(
    indptr: tl.tensor, indices: tl.tensor, users: tl.tensor, seed: tl.tensor, seen: tl.tensor, number: tl.tensor,
    out: tl.tensor, n: tl.tensor, n_seen: tl.tensor, search_steps: tl.tensor, B: tl.constexpr,
) -> None:  # fmt: skip
    """Write out[b], a seen item that users[b] has not seen, -1 if there is none; int32 [n].

    indptr int64, indices int32: the CSR; users int32 or int64 [n]; seed int64 [1]; seen, number int32 [n_seen], [I].
    """
    b = tl.program_id(0) * B + tl.arange(0, B)
    live = b < n
    user = tl.load(users + b, mask=live, other=0).to(tl.int64)
    start, stop = tl.load(indptr + user, mask=live, other=0), tl.load(indptr + user + 1, mask=live, other=0)
    choices = n_seen - (stop - start)
    live = live & (choices > 0)
    z = tl.load(seed).to(tl.uint64) + (b + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    many = choices.to(tl.uint64)
    r = (((z >> 32) * many + (((z & 0xFFFFFFFF) * many) >> 32)) >> 32).to(tl.int64)
    low, high = start, stop
    for _ in range(search_steps):
        open_ = low < high
        middle = (low + high) // 2
        item = tl.load(indices + middle, mask=live & open_, other=0)
        below = tl.load(number + item, mask=live & open_, other=0) - (middle - start) <= r
        low = tl.where(open_ & below, middle + 1, low)
        high = tl.where(open_ & (below == 0), middle, high)
    drawn = tl.load(seen + r + low - start, mask=live, other=-1)
    tl.store(out + b, drawn, mask=b < n)


_numbered: WeakKeyDictionary[CSR, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def _numbers(user_items: CSR, device: torch.device) -> tuple[Tensor, Tensor]:
    copies = _numbered.setdefault(user_items, {})
    if device not in copies:
        seen, number = map(torch.from_numpy, number_items(user_items))
        copies[device] = seen.to(device), number.to(device)
    return copies[device]


def sample_negatives(user_items: CSR, users: Tensor, seed: Tensor) -> Tensor:
    """Return the samples, int32 [B], on the device of `users`; -1 if there is none.

    Args:
        user_items: [U, I], the pattern.
        users: integer [B], rows of `user_items`.
        seed: int64 [1] on that device, so that drawing it does not stop the device.
    """
    out = torch.empty(len(users), dtype=torch.int32, device=users.device)
    if len(users):
        seen, number = _numbers(user_items, users.device)
        rows = device_cache.on_device(user_items, users.device)
        sample_rows[(triton.cdiv(len(users), SAMPLES),)](
            rows.indptr, rows.indices, users.contiguous(), seed, seen, number, out, len(users), len(seen),
            rows.search_steps, B=SAMPLES, **FUSED,
        )  # fmt: skip
    return out
