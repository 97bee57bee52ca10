"""SASRec: self-attention over a user's items in their order.

Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018. With e_i the vector of item i, s_1 .. s_n the
newest L training items of a user, oldest first, and H the output of causal transformer blocks over e_{s_t} plus a
vector of the place t, counted from the newest,

    score_u,i = H_n . e_i,   loss = mean over places t of -log sigma(H_t . e_{s_t+1}) - log sigma(-H_t . e_j),

j an item that the user does not have. The order needs times or places. A training pair (u, i) is the place where i
comes next; a user's first item, and those before the newest L, train nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mllmrec.config import ModelConfig, Positive
from mllmrec.dataset import Histories
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, rate_candidates
from mllmrec.models.transitions import required_order
from mllmrec.training.loop import Network

_USERS = 1024  # encoded at once where no gradient is needed
_START = 0.02  # standard deviation of the first tables


class SASRecConfig(ModelConfig):
    """Settings of SASRec."""

    kind: Literal["sasrec"] = "sasrec"
    max_length: Positive = 50  # L
    blocks: Positive = 2
    heads: Positive = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class SASRec(NetworkModel):
    """See the module."""

    Config = SASRecConfig
    config: SASRecConfig
    title = "SASRec"
    reads = frozenset()
    candidates = rate_candidates("model.dropout", (0.5, 0.2), (1e-3, 3e-3))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel.

        Raises:
            InputError: the training interactions have no order.
        """
        return SASRecNetwork(required_order(self.context.histories, self.title), self.context.train.dim, self.config)


class SASRecNetwork(Network):
    """Blocks of attention over sequences.

    Args:
        histories: training histories with an order.
        dim: width of all vectors.
        config: length, blocks, heads, dropout.
    """

    shuffles_users = True  # a user's sequence is encoded once a batch

    def __init__(self, histories: Histories, dim: int, config: SASRecConfig) -> None:
        super().__init__()
        sequences, self._n_items = newest(histories, config.max_length), histories.n_items
        self.items = nn.Parameter(torch.randn(histories.n_items, dim) * _START)
        self.places = nn.Parameter(torch.randn(sequences.shape[1], dim) * _START)
        self.blocks = nn.ModuleList(_Block(dim, config.heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(dim)
        self._dropout, self._random = config.dropout, torch.Generator()
        lengths = np.minimum(np.diff(histories.indptr), sequences.shape[1])
        powers = 2 ** np.ceil(np.log2(np.maximum(lengths, 2))).astype(np.int64)
        keys, ages = _places(histories)
        arrays = {"sequences": sequences, "lengths": lengths, "widths": np.minimum(powers, sequences.shape[1]),
                  "keys": keys, "ages": ages}  # fmt: skip
        for name, array in arrays.items():
            self.register_buffer(f"_{name}", torch.from_numpy(array), persistent=False)

    _sequences: Tensor  # int64 [U, L], -1 before a user's first item
    _lengths: Tensor  # int64 [U]
    _widths: Tensor  # int64 [U], the lengths rounded up to a power of two
    _keys: Tensor  # int64 [n], u I + i of each pair, ascending
    _ages: Tensor  # int64 [n], the user's items after it

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw the seed of the epoch's dropout."""
        self._random = torch.Generator(self.items.device).manual_seed(int(generator.integers(2**63)))

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        rows, which = torch.unique(users, return_inverse=True)
        hidden = self._encode(rows)
        age = self._ages[torch.searchsorted(self._keys, users * self._n_items + positives)]
        before = hidden.shape[1] - 2 - age  # where the item comes next
        trained = age < self._lengths[users] - 1
        h = hidden[which, before.clamp(min=0)]
        positive, negative = ((h * self.items[ids]).sum(dim=1) for ids in (positives, negatives))
        losses = functional.softplus(-positive) + functional.softplus(negative)
        return (losses * trained).sum() / trained.sum().clamp(min=1)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return H_n of each user, zeros without items, and e; see Network."""
        n = len(self._sequences)
        parts = [
            self._encode(torch.arange(start, min(start + _USERS, n), device=self.items.device))[:, -1]
            for start in range(0, n, _USERS)
        ]
        return torch.cat(parts) * (self._lengths > 0)[:, None], self.items.detach()

    def _encode(self, users: Tensor) -> Tensor:
        """Return H of users [B], float32 [B, l, d], l the longest of their widths; zeros before those of a user.

        Users of one width are encoded together: beside a user with 50 items, 45 of 50 places of one with 5 are empty.
        """
        widths = self._widths[users]
        hidden = self.items.new_zeros(len(users), int(widths.max()), self.items.shape[1])
        for width in torch.unique(widths).tolist():
            rows = (widths == width).nonzero()[:, 0]
            hidden[rows, -width:] = self._encode_width(users[rows], width)
        return hidden

    def _encode_width(self, users: Tensor, width: int) -> Tensor:
        """Return H of the newest `width` items of users [B], float32 [B, width, d]."""
        sequences = self._sequences[users, -width:]
        filled = sequences >= 0
        x = self.items[sequences.clamp(min=0)] * self.items.shape[1] ** 0.5 + self.places[-width:]
        x = self._drop(x) * filled[:, :, None]
        causal = torch.ones(width, width, dtype=torch.bool, device=users.device).tril()
        own = torch.eye(width, dtype=torch.bool, device=users.device)  # no row of a mask is empty
        mask = (causal & filled[:, None, :] | own)[:, None]
        for block in self.blocks:
            x = block(x, mask, self._drop)
        normed: Tensor = self.norm(x)
        return normed

    def _drop(self, x: Tensor) -> Tensor:
        """Return x with dropout, drawn from the epoch's generator, while training."""
        if not self.training or not self._dropout:
            return x
        kept = torch.rand(x.shape, generator=self._random, device=x.device) >= self._dropout
        return x * kept / (1 - self._dropout)


class _Block(nn.Module):
    """Attention, then two layers, each on normalized input and added to it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor, drop: nn.Module) -> Tensor:
        """Return the block's output [B, l, d].

        Args:
            x: float32 [B, l, d].
            mask: bool [B, 1, l, l], the places that each place reads.
            drop: dropout.
        """
        batch, length, dim = x.shape
        parts = self.project(self.first(x)).view(batch, length, 3, self._heads, dim // self._heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + drop(self.out(read.transpose(1, 2).reshape(batch, length, dim)))
        summed: Tensor = x + drop(self.outer(functional.relu(self.inner(self.second(x)))))
        return summed


def newest(histories: Histories, max_length: int) -> NDArray[np.int64]:
    """Return the L <= `max_length` newest items of each user, the newest last, int64 [U, L]; -1 fills up."""
    counts = np.diff(histories.indptr)
    length = max(2, min(max_length, int(counts.max(initial=0))))
    users = np.repeat(np.arange(histories.n_users), counts)
    age = histories.indptr[users + 1] - 1 - np.arange(len(users))
    table = np.full((histories.n_users, length), -1, np.int64)
    kept = age < length
    table[users[kept], length - 1 - age[kept]] = histories.items[kept]
    return table


def _places(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the key u I + i of each pair, ascending, and how many items of the user come after it."""
    users = np.repeat(np.arange(histories.n_users), np.diff(histories.indptr))
    keys = users * histories.n_items + histories.items
    age = histories.indptr[users + 1] - 1 - np.arange(len(users))
    order = np.argsort(keys)
    return keys[order], age[order]
