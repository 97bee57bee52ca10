"""Optimization steps: their mean loss and, on a GPU, that replaying them is taking them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR
from torch import Tensor

from mllmrec.config import TrainConfig
from mllmrec.models.bpr import BPRNetwork
from mllmrec.models.mllmrec import MLLMRecNetwork
from mllmrec.models.vbpr import VBPRNetwork
from mllmrec.training.loop import Network, Steps

USERS, ITEMS, WIDTH, DIM = 50, 40, 12, 8
CONFIG = TrainConfig(dim=DIM, batch_size=64)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def triples(n: int) -> Tensor:
    generator = np.random.default_rng(3)
    return torch.from_numpy(np.stack([generator.integers(0, most, n) for most in (USERS, ITEMS, ITEMS)]))


def network(kind: str) -> Network:
    torch.manual_seed(1)
    users, items = torch.randn(USERS, WIDTH), torch.randn(ITEMS, WIDTH)
    match kind:
        case "bpr":
            return BPRNetwork(USERS, ITEMS, DIM, 0.01)
        case "vbpr":
            return VBPRNetwork(USERS, items, DIM, 0.01)
        case "walks":
            seen = CSR.from_pairs(np.arange(USERS), np.arange(USERS) % ITEMS, (USERS, ITEMS))
            return MLLMRecNetwork(users, items, DIM, user_items=seen, user_item_layers=1)
        case _:
            return MLLMRecNetwork(users, items, DIM, ids=kind == "ids")


def test_the_loss_is_the_mean_over_all_triples() -> None:
    """At a rate of next to nothing the weights stay, so it is the loss of all triples at once."""
    model = network("mllmrec")
    steps = Steps(model, CONFIG.model_copy(update={"learning_rate": 1e-12}), torch.device("cpu"))
    everything = triples(150)
    assert steps.run(everything) == pytest.approx(model.loss(*everything).item(), rel=1e-6)
    assert steps.run(everything[:, :0]) == 0


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("kind", ["mllmrec", "ids", "bpr", "vbpr", "walks"])
def test_replayed_steps_are_the_steps(kind: str) -> None:
    """Sums by atomics come in any order: 1e-5 of a weight; the two projectors have none and give the same bits."""
    device = torch.device("cuda")
    replayed, taken = network(kind).to(device), network(kind).to(device)
    steps, plain = Steps(replayed, CONFIG, device), Steps(taken, CONFIG, device)
    plain._records = False
    everything = triples(400).to(device)  # six batches of 64, and one of 16
    for _ in range(3):
        assert steps.run(everything) == pytest.approx(plain.run(everything), rel=1e-5)
    assert sorted(steps._recorded) == ([] if kind == "walks" else [16, 64])
    for left, right in zip(replayed.parameters(), taken.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=0 if kind == "mllmrec" else 1e-6)


@pytest.mark.gpu
@on_gpu
def test_steps_in_bfloat16_are_replayed_too() -> None:
    device = torch.device("cuda")
    model = network("mllmrec").to(device)
    steps = Steps(model, CONFIG.model_copy(update={"precision": "bfloat16"}), device)
    everything = triples(400).to(device)
    losses = [steps.run(everything) for _ in range(8)]
    assert steps._recorded
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
