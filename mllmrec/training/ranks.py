"""Several processes that train one network: each takes a share of every batch, and torch averages the gradients.

`torchrun` starts them and numbers them; Ray Train sets the same variables. Rank 0 runs the stages. The others wait
until it trains, fit the same model on the artefacts of its run, and write nothing. Every rank takes the same draws and
the same steps, so that all hold the same network. The run must lie where every rank sees it.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import numpy as np

_WAIT = timedelta(days=30)  # for rank 0, which may describe pictures for days before it trains


def count() -> int:
    """Return how many processes train, as torchrun says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def own() -> int:
    """Return the number of this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def begin() -> None:
    """Tell the waiting ranks that training begins; they say nothing themselves."""
    if count() > 1 and own() == 0:
        _join()
        _send(np.ones(1))


def wait() -> bool:
    """Wait for rank 0; return whether it trains, or ends without."""
    _join()
    return bool(_send(np.zeros(1))[0])


def leave() -> None:
    """Let the ranks end that still wait, and leave the group."""
    if count() > 1 and own() == 0 and not are_joined():
        _join()
        _send(np.zeros(1))
    if are_joined():
        import torch.distributed as dist

        dist.destroy_process_group()


def are_joined() -> bool:
    """Tell whether this process is in a group; where torch is not loaded it is in none."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and bool(dist.is_initialized())


def agree(*values: float) -> tuple[float, ...]:
    """Return the values of rank 0, so that no rounding of another machine ends a training early."""
    return tuple(_send(np.array(values)).tolist()) if are_joined() else values


def agree_text(text: str) -> str:
    """Return the text of rank 0."""
    if not are_joined():
        return text
    data = np.frombuffer(text.encode(), np.uint8).astype(np.float64)
    size = int(agree(len(data))[0])
    return _send(data if own() == 0 else np.zeros(size)).astype(np.uint8).tobytes().decode()


def _send(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the numbers of rank 0, float64."""
    import torch
    import torch.distributed as dist

    sent = torch.from_numpy(values.astype(np.float64))
    if len(values):
        dist.broadcast(sent, 0)
    return sent.numpy()


def _join() -> None:
    if are_joined():
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_WAIT)
