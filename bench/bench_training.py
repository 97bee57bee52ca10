"""One epoch and its validation beside a loop with the cost profile of the paper's public code.

The peer is a clean-room loop written from what is measured of that code, not from its text: at each
step E + A E is computed anew and *all* rows pass both projectors; negatives are drawn and rejected in Python;
the loss is read from the device at each step; evaluation does a full forward for each batch of 4,096 users,
writes its scores out, takes the top 50 and looks hits up one by one in Python. That code looks them up in arrays,
which is most of its evaluation; the second peer looks them up in sets.

Both sides start from the same data, in the sizes of Amazon Baby.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from itertools import count

import numpy as np
import torch
from mllmrec_bench import interactions
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.peers import Case
from mllmrec_bench.peers.case import Peer, sizes

from mllmrec.config import GraphConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models import FitContext, MLLMRec
from mllmrec.models.base import FitData
from mllmrec.training.trainer import Trainer

USERS, ITEMS, PAIRS, HELD_OUT = 19_445, 7_050, 118_551, 20_559
WIDTH, DIM = 384, 64
BATCH, EVALUATED, LONGEST = 2_048, 4_096, 50


class Data:
    """Features, graph and splits."""

    def __init__(self, sized: Callable[[int], int]) -> None:
        drawn = interactions.interactions(sized(USERS), sized(ITEMS), sized(PAIRS + HELD_OUT))
        self.train, self.valid = interactions.held_out(drawn, share=HELD_OUT / (PAIRS + HELD_OUT))
        self.histories = Histories(self.train.indptr, self.train.indices, None, drawn.n_columns, "train")
        items = isotropic(drawn.n_columns, WIDTH)
        self.features = Features.of_items(items, self.histories)
        self.graph: ItemGraph = build_graph(items, self.histories, GraphConfig(threshold=-1))

    def trainer(self, config: TrainConfig) -> Trainer:
        """Return the trainer of MLLMRec on these features."""
        model, train = MLLMRec(context=FitContext(config, self.graph)), self.train
        data = FitData(train, self.features.items, self.features.users, self.valid)
        return Trainer(lambda: model.build(data), model.training(data))


def test_epoch(compare: Callable[[Case], None], sized: Callable[[int], int]) -> None:
    data, epochs = Data(sized), count(1)
    config = TrainConfig(dim=DIM, batch_size=BATCH)
    trainer = data.trainer(config)
    users, items = data.train.shape
    case = Case(
        "train",
        f"generated {sizes(U=users, I=items, pairs=data.train.nnz)} {WIDTH} to {DIM}, epoch and validation",
        lambda: trainer.run_epoch(next(epochs)),
        (
            Peer("loop like the paper's", "torch", lambda: PaperLikeLoop(data, np.array).epoch),
            Peer("the same, hits by set", "torch", lambda: PaperLikeLoop(data, set).epoch),
        ),
    )
    compare(case)


def projector() -> torch.nn.Module:
    """The method's projector as torch has it."""
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 4 * DIM), torch.nn.LeakyReLU(inplace=True), torch.nn.Linear(4 * DIM, DIM)
    )


class PaperLikeLoop:
    """The peer; see the module."""

    def __init__(self, data: Data, collect: Callable[[Sequence[int]], Container[int]], device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.items, self.users = (
            torch.from_numpy(rows).to(device) for rows in (data.features.items, data.features.users)
        )
        A = data.graph.normalized.to_scipy().tocoo()
        ends = torch.from_numpy(np.stack(A.coords).astype(np.int64))
        graph = torch.sparse_coo_tensor(ends, torch.from_numpy(A.data), A.shape, check_invariants=True).coalesce()
        self.graph = graph.to(device)
        self.user_tower, self.item_tower = (projector().to(device) for _ in range(2))
        parameters = [*self.user_tower.parameters(), *self.item_tower.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=1e-3)
        self.seen = [set(data.histories.of(user).tolist()) for user in range(len(self.users))]
        self.pairs = [(user, item) for user, items in enumerate(self.seen) for item in items]
        self.heldout = [collect(data.valid.row(user).tolist()) for user in range(len(self.users))]
        self.masked = torch.from_numpy(np.stack([data.train.rows(), data.train.indices])).to(device)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        layers = torch.stack([self.items, torch.sparse.mm(self.graph, self.items)], dim=1)
        return self.user_tower(self.users), self.item_tower(layers.sum(dim=1))

    def negative(self, user: int) -> int:
        while (item := random.randrange(len(self.items))) in self.seen[user]:
            pass
        return item

    def epoch(self) -> float:
        random.shuffle(self.pairs)
        for start in range(0, len(self.pairs), BATCH):
            batch = self.pairs[start : start + BATCH]
            users, positives = (torch.tensor(ids, device=self.device) for ids in zip(*batch, strict=True))
            negatives = torch.tensor([self.negative(user) for user, _ in batch], device=self.device)
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
        for start in range(0, len(self.users), EVALUATED):
            h_user, h_item = self.forward()
            scores = h_user[start : start + EVALUATED] @ h_item.T
            inside = (self.masked[0] >= start) & (self.masked[0] < start + EVALUATED)
            scores[self.masked[0, inside] - start, self.masked[1, inside]] = -1e10
            best.append(scores.topk(min(LONGEST, len(self.items)), dim=1).indices)
        lists = torch.cat(best).cpu().numpy()
        hits = [[item in held for item in row] for row, held in zip(lists, self.heldout, strict=True)]
        return float(np.mean(np.array(hits)[:, :20].sum(1)))
