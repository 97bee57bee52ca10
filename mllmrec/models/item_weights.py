"""Models that are one I x I matrix: the item-graph ridge (sparse) and EASE (dense), fitted in closed form.

The ridge keeps the item graph of the method and replaces its weights: the support of an item is its K_c
nearest audiences and K_s nearest vectors, and the weights are what a ridge regression on exactly those
neighbours says (issue 5, section 3). It never holds more than I x (K_c + K_s) numbers.

EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019) regresses each item on all others:
with P = (G + lambda I)^-1, B_ij = -P_ij / P_jj and B_jj = 0. G is R^T R, plus w V V^T for the
content-augmented one, which is EASE on the interactions with sqrt(w) V^T stacked below as further users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from mllmrec_kernels import CSR, ridge_path
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.linalg import lapack

from mllmrec.config import ModelConfig
from mllmrec.dataset import Histories
from mllmrec.errors import TrainingError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.device import CPU
from mllmrec.graph import neighbors as nearest
from mllmrec.models.scorer import Lists, WeightsScorer


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """A fitted model of item-item weights.

    Attributes:
        user_items: binary [U, I], the training interactions.
        weights: [I, I], sparse or dense float32; row i is what owning item i adds to each item's score.
        histories: digest of the training histories.
    """

    user_items: CSR
    weights: CSR | NDArray[np.float32]
    histories: str

    @property
    def summary(self) -> str:
        """One line for a person."""
        n = self.user_items.n_columns
        if isinstance(self.weights, CSR):
            return f"{self.weights.nnz:,} item-item weights, {self.weights.nnz / max(1, n):.0f} an item"
        return f"{n:,} x {n:,} item-item weights, dense"

    @property
    def scorer(self) -> WeightsScorer:
        """The model as the evaluation sees it."""
        return WeightsScorer.of(self.user_items, self.weights)

    def similar(self, k: int) -> Lists:
        """The k items that add most to each item's score: ids int32 [I, k], weights float32 [I, k]."""
        incoming = sp.csr_array(self.scorer.weights).T.tocsr()
        ids = np.full((incoming.shape[0], k), -1, np.int32)
        values = np.full(ids.shape, -np.inf, np.float32)
        for item in range(len(ids)):
            row = slice(incoming.indptr[item], incoming.indptr[item + 1])
            neighbours, weights = incoming.indices[row], incoming.data[row]
            best = np.lexsort((neighbours, -weights))[:k]
            best = best[weights[best] > 0]
            ids[item, : len(best)], values[item, : len(best)] = neighbours[best], weights[best]
        return ids, values

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write weights.safetensors and train.json."""
        tensors: dict[str, NDArray[Any]] = {
            "user_indptr": self.user_items.indptr,
            "user_indices": self.user_items.indices,
        }
        if isinstance(self.weights, CSR):
            tensors |= {"indptr": self.weights.indptr, "indices": self.weights.indices}
            tensors["weights"] = self.weights.values()
        else:
            tensors["weights"] = self.weights
        with storage.atomic(path("weights.safetensors")) as temporary:
            save_file(tensors, temporary)
        notes = {"histories": self.histories, "n_items": self.user_items.n_columns}
        storage.write_json(path("train.json"), notes)
        return ["weights.safetensors", "train.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> ItemWeights:
        """Read what save wrote."""
        tensors, notes = load_file(path("weights.safetensors")), storage.read_json(path("train.json"))
        user_items = CSR(tensors["user_indptr"], tensors["user_indices"], None, notes["n_items"])
        weights: CSR | NDArray[np.float32] = tensors["weights"]
        if "indptr" in tensors:
            weights = CSR(tensors["indptr"], tensors["indices"], tensors["weights"], notes["n_items"])
        return ItemWeights(user_items, weights, notes["histories"])


def ridge(vectors: Vectors, histories: Histories, config: ModelConfig, *, device: torch.device = CPU) -> ItemWeights:
    """The item graph with the weights of each item's ridge regression on its neighbours; see ridges."""
    return ridges(vectors, histories, config, [(config.content_weight, config.regularisation)], device=device)[0]


def ridges(
    vectors: Vectors,
    histories: Histories,
    config: ModelConfig,
    strengths: Sequence[tuple[float, float]],
    *,
    support: CSR | None = None,
    device: torch.device = CPU,
) -> list[ItemWeights]:
    """One ridge for each (w, lambda), all on the same neighbours.

    Args:
        vectors: float32 [I, d], item features.
        histories: training histories.
        config: supports.
        strengths: w and lambda.
        support: the neighbours, binary [I, I], where they are at hand; else those of ridge_support.
        device: where neighbours are sought and the regressions solved.

    Raises:
        LeakError: the histories hold held-out interactions.
        KernelError: lambda is too small beside w for float64.
    """
    histories.require_training("the ridge")
    user_items = histories.user_items()
    support = ridge_support(vectors, user_items, config, device) if support is None else support
    fitted = ridge_path(user_items, torch.from_numpy(vectors).to(device), support, strengths)
    return [ItemWeights(user_items, onto.transpose(), histories.digest) for onto in fitted]


def ridge_support(vectors: Vectors, user_items: CSR, config: ModelConfig, device: torch.device = CPU) -> CSR:
    """What each item is regressed on: its nearest audiences and its nearest vectors, binary [I, I]."""
    n = len(vectors)
    lists = []
    if config.cooccurrence_support:
        lists.append(nearest.by_audiences(user_items, config.cooccurrence_support, device)[0])
    if config.semantic_support:
        lists.append(nearest.by_vectors(vectors, config.semantic_support, device)[0])
    ids = np.concatenate(lists, axis=1) if lists else np.empty((n, 0), np.int32)
    rows, columns = np.nonzero(ids >= 0)
    return CSR.from_pairs(rows, ids[rows, columns], (n, n))


def ease(vectors: Vectors, histories: Histories, config: ModelConfig) -> ItemWeights:
    """EASE, content-augmented where `content_weight` is above 0; one dense float64 inverse.

    Raises:
        LeakError: the histories hold held-out interactions.
        TrainingError: the catalogue is too large for a dense I x I matrix within `dense_gib`.
    """
    histories.require_training("EASE")
    n = histories.n_items
    gib = 6 * 8 * n * n / 2**30  # six float64 matrices at the peak, as measured (863 MiB for 4,344 items)
    if gib > config.dense_gib:
        raise TrainingError(
            f"EASE over {n:,} items needs {gib:,.1f} GiB of dense matrices, and model.dense_gib is "
            f"{config.dense_gib:g}; raise it, or take model.kind=ridge, which holds neighbours alone"
        )
    user_items = histories.user_items()
    G = np.asarray((user_items.to_scipy().T @ user_items.to_scipy()).toarray(), np.float64)
    if config.content_weight:
        V = vectors.astype(np.float64)
        G += config.content_weight * (V @ V.T)
    G[np.diag_indices(n)] += config.regularisation
    P = _inverse(G)
    weights = np.asarray(P / -np.diag(P), np.float32)
    np.fill_diagonal(weights, 0)
    return ItemWeights(user_items, weights, histories.digest)


def _inverse(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a symmetric positive definite matrix."""
    factor, failed = lapack.dpotrf(G, lower=1)
    if failed:
        raise TrainingError("EASE's matrix is not positive definite; raise model.regularisation")
    P, _ = lapack.dpotri(factor, lower=1)
    lower = np.tril(P, -1)
    return np.asarray(lower + lower.T + np.diag(np.diag(P)))
