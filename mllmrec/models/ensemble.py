"""The default model: closed forms that see different things, mixed with weights that validation chooses.

    ridge        R_u W, the item graph with each item's ridge regression on its neighbours (item_weights.py)
    factors      p_u q_i by alternating least squares, items shrunk to what their vectors predict (factors.py)
    low-pass     the smooth part of the user-item graph (low_pass.py)
    content      cosine of an item's vector to the mean of the user's items
    profile      cosine of an item's vector to the user's own profile, where it is not that mean
    popularity   log (1 + training users)

    score_u = R_u W / sd(R_u W) + sum over parts k of c_k s_k,u / sd(s_k,u),   sd over the catalogue

What has settings (the strengths of the ridge, the shrinkage of the factors, the filter's rank) takes the best of
two or three by the part's own validation NDCG@20; then the c_k are searched (mixing.py). The factors' content is
the learnt projection of the item vectors (projection.py). There are two ridges, on the vectors and on the
projection, and the one whose mixture is better stays. Training interactions fit, validation chooses, test is never
seen. All parts but the ridge are inner products, so the fitted model is the ridge and two tables of vectors, c_k / sd
folded into the users': memory I x K and (U + I) x width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mllmrec.config import ModelConfig
from mllmrec.dataset import Histories
from mllmrec.errors import TrainingError
from mllmrec.features.encode import Features, Vectors, mean_of_items
from mllmrec.foundation import storage
from mllmrec.foundation.device import CPU
from mllmrec.models.content_regression import Prediction, projected
from mllmrec.models.ensemble_weights import choose_weights, standardised, validation_ndcg
from mllmrec.models.factors import ials
from mllmrec.models.graph_filter import low_pass, narrowed
from mllmrec.models.item_weights import ItemWeights, ridge_support, ridges
from mllmrec.models.scorer import Lists, VectorScorer, WeightsScorer, ranks_by_block, top_by_user

STRENGTHS = ((20.0, 50.0), (40.0, 200.0))  # w and lambda of the ridge
SHRINKAGES = ((1.0, 0.02), (3.0, 0.05))  # unobserved and shrinkage of the factors
_PROFILE_IS_MEAN = 1e-5  # vectors closer than this are the same


@dataclass(frozen=True, slots=True)
class BlendScorer:
    """See the module.

    Attributes:
        ridge: the item-graph ridge.
        rest: all other parts, weighted.
    """

    ridge: WeightsScorer
    rest: VectorScorer

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """See BlockScorer."""
        return _over_spread(self.ridge.scores(start, stop)) + self.rest.scores(start, stop)

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        return ranks_by_block(self, exclude, heldout)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """See top_by_user."""
        return top_by_user(self, users, k, exclude)


def _over_spread(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row over its standard deviation, which is summed in float64; a constant row becomes zeros."""
    spread = np.array([row.std(dtype=np.float64) for row in scores])  # by rows: no float64 copy of the block
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(scores * scale[:, None].astype(np.float32))


@dataclass(frozen=True, slots=True)
class Blend:
    """A fitted blend.

    Attributes:
        item_weights: the ridge.
        users, items: of the other parts, float32 [U, D] and [I, D]; their weights and scales are in `users`.
        weights: c of each part by its name; 1 for the ridge.
    """

    item_weights: ItemWeights
    users: Vectors
    items: Vectors
    weights: Mapping[str, float]

    @property
    def summary(self) -> str:
        """One line for a person."""
        mixed = ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items() if weight)
        return f"{mixed}; {self.item_weights.summary}"

    @property
    def scorer(self) -> BlendScorer:
        """The model as the evaluation sees it."""
        return BlendScorer(self.item_weights.scorer, VectorScorer(self.users, self.items))

    def similar(self, k: int) -> Lists:
        """By the ridge's weights; see ItemWeights."""
        return self.item_weights.similar(k)

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write the ridge's files, parts.safetensors and blend.json."""
        names = self.item_weights.save(path)
        with storage.atomic(path("parts.safetensors")) as temporary:
            save_file({"users": self.users, "items": self.items}, temporary)
        storage.write_json(path("blend.json"), {"weights": dict(self.weights)})
        return [*names, "parts.safetensors", "blend.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Blend:
        """Read what save wrote."""
        tensors = load_file(path("parts.safetensors"))
        weights = storage.read_json(path("blend.json"))["weights"]
        return Blend(ItemWeights.load(path), tensors["users"], tensors["items"], weights)


def blend(
    features: Features,
    histories: Histories,
    valid: CSR,
    config: ModelConfig,
    *,
    seed: int,
    profiled: Histories | None = None,
    device: torch.device = CPU,
) -> Blend:
    """Fit all parts and choose their weights.

    Args:
        features: vectors of items and users.
        histories: training histories.
        valid: [U, I] validation interactions; used to choose alone.
        config: supports of the ridge, `rank`.
        seed: of the factors' start.
        profiled: the histories behind the user vectors, where they are not the training ones (a LEAKY run).
        device: where neighbours are sought and the ridges solved.

    Raises:
        LeakError: the histories hold held-out interactions.
        MismatchError: the features belong to other data.
        TrainingError: there are no validation interactions to choose by.
    """
    histories.require_training("the blend")
    features.check(profiled or histories)
    if valid.nnz == 0:
        raise TrainingError(
            "the validation split is empty, and the blend chooses its weights by it; prepare the dataset with a "
            "split that holds some interactions out, or take model.kind=ridge"
        )
    train, Z = histories.user_items(), projected(features.items, histories)
    parts = {name: standardised(part) for name, part in _parts(features, Z, histories, valid, config, seed).items()}
    either = _ridges([features.items, Z], histories, valid, config, device)
    best, chosen = choose_weights([_alone(ridge) for ridge in either], [*parts.values()], train, valid)
    weights = dict(zip(("ridge", *parts), chosen, strict=True))
    used = {name: part for name, part in parts.items() if weights[name]}
    users = [np.float32(weights[name]) * part.users for name, part in used.items()]
    nothing = _nothing(valid.shape)
    return Blend(
        either[best],
        np.concatenate([nothing.users, *users], axis=1),
        np.concatenate([nothing.items, *(part.items for part in used.values())], axis=1),
        weights,
    )


def _nothing(shape: tuple[int, int]) -> VectorScorer:
    """A part of no width, for [U, I]."""
    return VectorScorer(*(np.zeros((n, 0), np.float32) for n in shape))


def _alone(ridge: ItemWeights) -> BlendScorer:
    """The ridge as a part: its scores over their spread."""
    return BlendScorer(ridge.scorer, _nothing(ridge.user_items.shape))


def _ridges(
    either: Sequence[Vectors], histories: Histories, valid: CSR, config: ModelConfig, device: torch.device
) -> list[ItemWeights]:
    """The ridge of the best strengths on each of the vectors, all on the neighbours by the first."""
    train = histories.user_items()
    support = ridge_support(either[0], train, config, device)
    tried = (ridges(vectors, histories, config, STRENGTHS, support=support, device=device) for vectors in either)
    return [max(one, key=lambda fitted: validation_ndcg(fitted.scorer, train, valid)) for one in tried]


def _parts(
    features: Features, Z: Vectors, histories: Histories, valid: CSR, config: ModelConfig, seed: int
) -> dict[str, VectorScorer]:
    """Every part but the ridge, by its name."""
    train, items, content = histories.user_items(), features.items, Prediction(Z)
    factors = (
        ials(histories, rank=config.rank, unobserved=w, shrinkage=shrinkage, seed=seed, content=content).scorer
        for w, shrinkage in SHRINKAGES
    )
    widest = low_pass(train, config.rank)
    filters = (narrowed(widest, max(1, config.rank // by)) for by in (4, 2, 1))
    means = mean_of_items(items, histories)
    audience = np.log1p(np.bincount(histories.items, minlength=len(items))).astype(np.float32)
    parts = {
        "factors": _best(factors, train, valid),
        "low-pass": _best(filters, train, valid),
        "content": VectorScorer(means, items),
    }
    if features.users.shape == means.shape and not np.allclose(features.users, means, atol=_PROFILE_IS_MEAN):
        parts["profile"] = VectorScorer(features.users, items)
    return parts | {"popularity": VectorScorer(np.ones((len(means), 1), np.float32), audience[:, None])}


def _best(candidates: Iterable[VectorScorer], train: CSR, valid: CSR) -> VectorScorer:
    """The first of those with the highest validation NDCG@20."""
    return max(candidates, key=lambda part: validation_ndcg(part, train, valid))
