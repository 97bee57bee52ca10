"""The default model: closed forms that read different data, with weights that validation chooses.

docs/method.md, section 8. The parts, and what their score of an item for user u is:

    ridge         R_u W, each item regressed on its neighbors (ridge.py)
    factors       p_u . q_i by alternating least squares, items shrunk to what their vectors predict (ials.py)
    graph filter  the smooth part of the user-item graph (graph_filter.py)
    content       cosine of the item's vector to the mean of the user's items
    profile       cosine of the item's vector to the user's own profile, where it is not that mean
    popularity    log (1 + training users)

    score_u = R_u W / sd(R_u W) + sum over parts k of c_k s_k,u / sd(s_k,u),   sd over the catalogue.

A part with settings (strengths of the ridge and of the factors, width of the filter) takes the best of two or three by
its own validation NDCG@20. Then the c_k are searched (ensemble_weights.py). The factors read a learned projection of
the item vectors (content_regression.py). There are two ridges, on the vectors and on the projection; the one whose
ensemble is better stays. Training interactions fit, validation chooses, test is never read.

All parts but the ridge are inner products. So the fitted model is the ridge and two tables of vectors, with c_k / sd
folded into the users'. Memory: I x K and (U + I) x width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import torch
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike
from safetensors.numpy import load_file, save_file

from mllmrec.config import Count, ModelConfig, Positive
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.foundation import storage
from mllmrec.foundation.environment import resolve_device
from mllmrec.foundation.progress import Progress
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.content_regression import LeaveOneOutRegression, project_vectors
from mllmrec.models.ensemble_weights import choose_weights, standardize
from mllmrec.models.graph_filter import graph_filter, narrow
from mllmrec.models.ials import alternate
from mllmrec.models.ridge import ItemGraphRidge, RidgeConfig, ridge_support, ridge_weights
from mllmrec.models.scorer_model import ScorerModel
from mllmrec.models.scoring import Lists, VectorScorer
from mllmrec.models.validation import Validation, sample_summary
from mllmrec.models.weight_scorers import StandardizedScorer, WeightsScorer

RIDGE_STRENGTHS = ((20.0, 50.0), (40.0, 200.0))  # w and lambda
FACTOR_STRENGTHS = ((1.0, 0.02), (3.0, 0.05))  # unobserved weight and regularization
FACTOR_ITERATIONS = 10
_FILTER_SHARES = (4, 2, 1)  # the filter has `factors` over one of them
_SAME = 1e-5  # vectors closer than this are the same


class EnsembleConfig(ModelConfig):
    """Settings of the ensemble."""

    kind: Literal["ensemble"] = "ensemble"
    cooccurrence_support: Count = 100  # the ridge's neighbors by Jaccard
    semantic_support: Count = 100  # the ridge's neighbors by cosine
    factors: Positive = 64  # width of the factors, and of the graph filter at most


class Ensemble(ScorerModel):
    """See the module; without features, the parts that read them count nothing.

    Attributes:
        ridge: the fitted ridge.
        rest: the other parts, float32 [U, D] and [I, D]; their weights and scales are in the users' table.
        weights: c of each part by its name, 1 for the ridge; empty before a fit.
        sample: the users who chose and what they said of each candidate; empty where all users chose.
    """

    Config = EnsembleConfig
    config: EnsembleConfig
    title = "ensemble"
    is_random = True
    ridge: ItemGraphRidge
    rest: VectorScorer
    weights: Mapping[str, float] = MappingProxyType({})
    sample: Mapping[str, Any] = MappingProxyType({})

    def _fit(self, data: FitData) -> None:
        """Fit all parts and choose their weights.

        Raises:
            TrainingError: there are no validation interactions to choose by.
            ConfigError: train.device asks for a GPU that is not there.
        """
        R, progress = data.user_items, self.context.progress
        device = resolve_device(self.context.train.device, "train.device")
        held = data.required_valid("the ensemble chooses its weights by it (model.kind=ridge needs none)")
        items = data.items_or_zeros()
        validation = Validation(R, held, data.seed)
        progress("project vectors", 0, 1)
        Z = project_vectors(items, R)
        progress("project vectors", 1, 1)
        parts = self._fit_parts(data, validation, items, Z)
        ridges = self._fit_ridges(validation, (items, Z), device)
        firsts = [StandardizedScorer(WeightsScorer.of(R, W), _no_parts(R.shape)) for W in ridges]
        best, weights = choose_weights(firsts, list(parts.values()), validation, progress)
        self.weights = dict(zip(("ridge", *parts), weights, strict=True))
        self.rest = _join([(part, self.weights[name]) for name, part in parts.items()], R.shape)
        self.ridge = self._empty_ridge().set_weights(R, ridges[best])
        self.sample = validation.record

    def _fit_parts(self, data: FitData, validation: Validation, items: Vectors, Z: Vectors) -> dict[str, VectorScorer]:
        """Return every part but the ridge by its name, each on one scale.

        Args:
            data: training interactions, profiles of the users, seed.
            validation: the users to choose settings by.
            items: float32 [I, d].
            Z: float32 [I, r], projected item vectors.
        """
        progress, r = self.context.progress, self.config.factors
        R, profiles = data.user_items, data.users
        factors = _fit_factors(R, LeaveOneOutRegression(Z), r, data.seed, progress)
        widest = graph_filter(R, r)
        filters = (narrow(widest, max(1, r // share)) for share in _FILTER_SHARES)
        means = mean_of_owned(items, R)
        popularity = np.log1p(np.bincount(R.indices, minlength=len(items))).astype(np.float32)
        parts = {
            "factors": validation.best("factors", factors, progress)[1],
            "graph filter": validation.best("graph filters", filters, progress)[1],
            "content": VectorScorer(means, items),
        }
        if profiles is not None and profiles.shape == means.shape and not np.allclose(profiles, means, atol=_SAME):
            parts["profile"] = VectorScorer(profiles, items)
        parts["popularity"] = VectorScorer(np.ones((R.n_rows, 1), np.float32), popularity[:, None])
        return {name: standardize(part) for name, part in parts.items()}

    def _fit_ridges(self, validation: Validation, tables: Sequence[Vectors], device: torch.device) -> list[CSR]:
        """Return the weights of the best strengths on each table of vectors, all on the neighbors by the first."""
        progress, config, R = self.context.progress, self.config, validation.train
        progress("search neighbors", 0, 1)
        support = ridge_support(tables[0], R, config.cooccurrence_support, config.semantic_support, device)
        progress("search neighbors", 1, 1)
        best = []
        for n, vectors in enumerate(tables, start=1):
            label = f"fit ridge {n} of {len(tables)}"
            fitted = ridge_weights(vectors, R, support, RIDGE_STRENGTHS, device, progress, label)
            scorers = [WeightsScorer.of(R, W) for W in fitted]
            best.append(fitted[validation.best(f"ridges {n} of {len(tables)}", scorers, progress)[0]])
        return best

    def _empty_ridge(self) -> ItemGraphRidge:
        config = RidgeConfig(
            cooccurrence_support=self.config.cooccurrence_support, semantic_support=self.config.semantic_support
        )
        return ItemGraphRidge(config, context=self.context)

    @property
    def scorer(self) -> StandardizedScorer:
        """The fitted parts.

        Raises:
            InputError: the model is not fitted.
        """
        if not self.weights:
            raise InputError("this model is not fitted; call fit() first")
        return StandardizedScorer(self.ridge.scorer, self.rest)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        mixed = ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items() if weight)
        return "; ".join(text for text in (mixed, self.ridge.summary, sample_summary(self.sample)) if text)

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return similar items by the ridge's weights; see ItemWeightModel."""
        return self.ridge.similar_items(items, k)

    def write_files(self, path: FilePath) -> list[str]:
        """Write the ridge's files, parts.safetensors and ensemble.json."""
        names = self.ridge.write_files(path)
        with storage.atomic(path("parts.safetensors")) as temporary:
            save_file({"users": self.rest.users, "items": self.rest.items}, temporary)
        notes: dict[str, Any] = {"weights": dict(self.weights)}
        storage.write_json(path("ensemble.json"), notes | ({"sample": dict(self.sample)} if self.sample else {}))
        return [*names, "parts.safetensors", "ensemble.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        tensors = load_file(path("parts.safetensors"))
        self.rest = VectorScorer(tensors["users"], tensors["items"])
        notes = storage.read_json(path("ensemble.json"))
        self.weights = {str(name): float(weight) for name, weight in notes["weights"].items()}
        self.sample = notes.get("sample", {})
        self.ridge = self._empty_ridge().read_files(path)
        self.user_items = self.ridge.user_items
        return self


def _no_parts(shape: tuple[int, int]) -> VectorScorer:
    """Return tables of no width, for [U, I]."""
    return VectorScorer(*(np.zeros((n, 0), np.float32) for n in shape))


def _join(parts: Sequence[tuple[VectorScorer, float]], shape: tuple[int, int]) -> VectorScorer:
    """Return the weighted sum of the parts that weigh anything, as one pair of tables for [U, I]."""
    none, used = _no_parts(shape), [(part, weight) for part, weight in parts if weight]
    users = [none.users, *(np.float32(weight) * part.users for part, weight in used)]
    items = [none.items, *(part.items for part, _ in used)]
    return VectorScorer(np.concatenate(users, axis=1), np.concatenate(items, axis=1))


def _fit_factors(
    R: CSR, content: LeaveOneOutRegression, width: int, seed: int, progress: Progress
) -> Iterator[VectorScorer]:
    """Yield the factors of each of FACTOR_STRENGTHS."""
    for n, (unobserved_weight, regularization) in enumerate(FACTOR_STRENGTHS, start=1):
        yield alternate(
            R,
            factors=width,
            unobserved_weight=unobserved_weight,
            regularization=regularization,
            iterations=FACTOR_ITERATIONS,
            seed=seed,
            content=content,
            progress=progress,
            label=f"fit factors {n} of {len(FACTOR_STRENGTHS)}",
        )
