"""One epoch and its validation beside a faithful loop with the cost profile of the paper's public code.

The peer is a clean-room loop written from what is measured of that code (method 3.4), not from its text: at each
step E + A E is computed anew and *all* rows pass both projectors; negatives are drawn and rejected in Python;
the loss is read from the device at each step; evaluation does a full forward for each batch of 4,096 users,
writes its scores out, takes the top 50 and looks hits up one by one in Python.

    python -m pytest bench/bench_training.py --benchmark-only -o python_files='bench_*.py'

Both sides start from the same data, in the sizes of Amazon Baby. `MLLMREC_BENCH_SHRINK=8` divides them.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR
from pytest_benchmark.fixture import BenchmarkFixture

from mllmrec.config import GraphConfig, ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.encode import Cuts, Features, mean_of_items
from mllmrec.graph import ItemGraph, build_graph
from mllmrec.models.mllmrec import Projector
from mllmrec.train import _Trainer

SHRINK = int(os.environ.get("MLLMREC_BENCH_SHRINK", "1"))
USERS, ITEMS, PAIRS, WIDTH, DIM = 19_445 // SHRINK, 7_050 // SHRINK, 118_551 // SHRINK, 384, 64
BATCH, EVALUATED, LONGEST = 2_048, 4_096, 50
ROUNDS = {"rounds": 3, "warmup_rounds": 1, "iterations": 1}


class Data:
    """Features, graph and splits."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        popularity = 1 / (10 + np.arange(ITEMS))
        popularity /= popularity.sum()
        drawn = CSR.from_pairs(
            generator.integers(USERS, size=PAIRS), generator.choice(ITEMS, size=PAIRS, p=popularity), (USERS, ITEMS)
        )
        self.histories = Histories(drawn.indptr, drawn.indices, None, ITEMS, "train")
        self.valid = CSR.from_pairs(np.arange(USERS), generator.choice(ITEMS, size=USERS, p=popularity), (USERS, ITEMS))
        rows = generator.standard_normal((ITEMS, WIDTH)).astype(np.float32)
        items = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        users = mean_of_items(items, self.histories)
        self.features = Features(items, users, self.histories.digest, Cuts(0, 0, 0, 0))
        self.graph: ItemGraph = build_graph(items, self.histories, GraphConfig(threshold=-1))


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


@pytest.mark.benchmark(group="epoch and validation")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_epoch(benchmark: BenchmarkFixture, data: Data, precision: str) -> None:
    config = TrainConfig(dim=DIM, batch_size=BATCH, precision=precision)
    trainer = _Trainer(data.features, data.graph, data.histories, data.valid, ModelConfig(kind="mllmrec"), config, 0)
    epochs = iter(range(1, 100))
    made = benchmark.pedantic(lambda: trainer.run_epoch(next(epochs)), **ROUNDS)
    assert np.isfinite(made.loss)


class FaithfulLoop:
    """The peer; see the module."""

    def __init__(self, data: Data) -> None:
        torch.manual_seed(0)
        self.items, self.users = torch.from_numpy(data.features.items), torch.from_numpy(data.features.users)
        A = data.graph.normalised.to_scipy().tocoo()
        ends = torch.from_numpy(np.stack(A.coords).astype(np.int64))
        self.graph = torch.sparse_coo_tensor(ends, torch.from_numpy(A.data), A.shape).coalesce()
        self.user_tower, self.item_tower = Projector(WIDTH, DIM), Projector(WIDTH, DIM)
        parameters = [*self.user_tower.parameters(), *self.item_tower.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=1e-3)
        self.seen = [set(data.histories.of(user).tolist()) for user in range(USERS)]
        self.pairs = [(user, item) for user, items in enumerate(self.seen) for item in items]
        self.heldout = [set(data.valid.row(user).tolist()) for user in range(USERS)]
        train = data.histories.user_items()
        self.masked = torch.from_numpy(np.stack([train.rows(), train.indices]))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        layers = torch.stack([self.items, torch.sparse.mm(self.graph, self.items)], dim=1)
        return self.user_tower(self.users), self.item_tower(layers.sum(dim=1))

    def negative(self, user: int) -> int:
        while (item := random.randrange(ITEMS)) in self.seen[user]:
            pass
        return item

    def epoch(self) -> float:
        random.shuffle(self.pairs)
        for start in range(0, len(self.pairs), BATCH):
            batch = self.pairs[start : start + BATCH]
            users, positives = (torch.tensor(ids) for ids in zip(*batch, strict=True))
            negatives = torch.tensor([self.negative(user) for user, _ in batch])
            h_user, h_item = self.forward()
            difference = (h_user[users] * (h_item[positives] - h_item[negatives])).sum(dim=1)
            loss = -torch.nn.functional.logsigmoid(difference).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            assert not np.isnan(loss.item())
        return self.validate()

    @torch.no_grad()
    def validate(self) -> float:
        best = []
        for start in range(0, USERS, EVALUATED):
            h_user, h_item = self.forward()
            scores = h_user[start : start + EVALUATED] @ h_item.T
            inside = (self.masked[0] >= start) & (self.masked[0] < start + EVALUATED)
            scores[self.masked[0, inside] - start, self.masked[1, inside]] = -1e10
            best.append(scores.topk(LONGEST, dim=1).indices)
        hits = [
            [item in self.heldout[user] for item in row] for user, row in enumerate(torch.cat(best).numpy().tolist())
        ]
        return float(np.mean(np.array(hits)[:, :20].sum(1)))


@pytest.mark.benchmark(group="epoch and validation")
def test_epoch_of_the_faithful_loop(benchmark: BenchmarkFixture, data: Data) -> None:
    loop = FaithfulLoop(data)
    assert np.isfinite(benchmark.pedantic(loop.epoch, **ROUNDS))
