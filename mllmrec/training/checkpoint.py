"""The state of a training after an epoch, and the file to go on from.

Everything random in an epoch is drawn from (seed, epoch), so a checkpoint needs no generator state: weights,
optimizer and counters at the end of an epoch are enough to go on to the same bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mllmrec.errors import MismatchError, first_line
from mllmrec.foundation import storage

Parameters = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the learning curve."""

    epoch: int
    loss: float
    recall: float  # validation Recall@20
    ndcg: float  # validation NDCG@20


@dataclass(frozen=True, slots=True)
class State:
    """The state of a training after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_recall: float = -math.inf
    best: Parameters = field(default_factory=dict)
    curve: tuple[Epoch, ...] = ()

    def after(self, epoch: Epoch, network: nn.Module) -> State:
        """Return the state one epoch on."""
        better = epoch.recall > self.best_recall  # unrounded; a tie is no progress
        return State(
            epoch=epoch.epoch,
            best_epoch=epoch.epoch if better else self.best_epoch,
            best_recall=epoch.recall if better else self.best_recall,
            best=_copy(network.state_dict()) if better else self.best,
            curve=(*self.curve, epoch),
        )


def save(path: Path, identity: str, state: State, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write everything that the next epoch depends on, in one file.

    Args:
        path: the file.
        identity: hash of data and settings.
        state: counters, curve and best parameters.
        network: its parameters go along.
        optimizer: its moments go along.
    """
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for n, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{n}.{name}": tensor for name, tensor in moments.items()}
    counters = replace(state, best={})
    notes = {"identity": identity, "state": json.dumps(asdict(counters))}
    with storage.atomic(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, notes)


def restore(
    path: Path, identity: str, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> State:
    """Read a checkpoint into network and optimizer; return its state.

    Args:
        path: the file.
        identity: hash of data and settings, as it was saved.
        network: gets the parameters.
        optimizer: gets the moments.
        device: where tensors go.

    Raises:
        MismatchError: it was made from other data or another config, or is damaged.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise MismatchError(f"the checkpoint {path} is damaged ({error}); remove it to start over") from error
    if notes.get("identity") != identity:
        raise MismatchError(
            f"the checkpoint {path} was made from other data or another config; remove it to start over"
        )
    try:
        network.load_state_dict(_under(tensors, "model."))
        _restore_optimizer(optimizer, _under(tensors, "adam."))
        counters = json.loads(notes["state"])
        counters["curve"] = tuple(Epoch(**row) for row in counters["curve"])
        return State(**counters | {"best": _under(tensors, "best.")})
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise MismatchError(
            f"the checkpoint {path} is not in the expected format ({first_line(error)}); remove it to start over"
        ) from error


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Parameters) -> None:
    whole = optimizer.state_dict()
    whole["state"] = {}
    for name, tensor in tensors.items():
        n, _, moment = name.partition(".")
        whole["state"].setdefault(int(n), {})[moment] = tensor
    optimizer.load_state_dict(whole)


def _copy(weights: Parameters) -> Parameters:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _under(tensors: Parameters, prefix: str) -> Parameters:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
