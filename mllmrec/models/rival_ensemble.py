"""An ensemble of rivals: the control of the default one, by the same search of weights.

Does the default win because its parts fit together, or because any models would, once validation weighs them? Here the
parts are whole models of other papers:

    score_u = sum over k of c_k s_k,u / sd(s_k,u),   sd over the catalogue.

A part takes the best of its settings by its own validation NDCG@20, nine settings in all, as many as the default tries.
Then the c_k are searched as the default's are (ensemble_weights.py); the best single part is the first one. Item-kNN
and popularity have no settings, as in the default. Scores are formed a block of users at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.config import ModelConfig
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.models import registry
from mllmrec.models.base import FilePath, FitData, Recommender, user_rows
from mllmrec.models.baselines import log_popularity
from mllmrec.models.ensemble_weights import choose_weights, standardize
from mllmrec.models.scoring import Lists, Part, Scorer, VectorScorer, block_rows, top_by_user
from mllmrec.models.validation import Validation

POPULARITY = "popularity"
Settings = Mapping[str, Any]
LINEAR: Mapping[str, Sequence[Settings]] = MappingProxyType(
    {
        "ease": ({"content_weight": 20, "regularization": 50}, {"content_weight": 40, "regularization": 200}),
        "l3ae": ({"content_pull": 150}, {"content_pull": 150, "regularization": 0}),
        "edlae": ({"regularization": 50},),
        "ials": (
            {"unobserved_weight": 1, "regularization": 0.02},
            {"unobserved_weight": 3, "regularization": 0.05},
        ),
        "item-knn": ({},),
    }
)
NETWORKS: Mapping[str, Sequence[Settings]] = MappingProxyType({"lightgcn": ({},), "freedom": ({},)})


class RivalEnsembleConfig(ModelConfig):
    """Settings of the ensemble of rivals."""

    kind: Literal["rival-ensemble"] = "rival-ensemble"
    networks: bool = True  # LightGCN and FREEDOM are among the parts


@dataclass(frozen=True, slots=True)
class ModelPart:
    """The scores of a fitted model, over their spread for each user.

    Attributes:
        model: scores every item.
    """

    model: Scorer

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]; zeros for a user whose scores are all equal."""
        block = self.model.scores(users)
        spread = np.array([row.std(dtype=np.float64) for row in block])[:, None]
        return np.asarray(block * np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0), np.float32)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """Return the k best items of each user; see Part.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list.
        """
        return top_by_user(self, users, k, exclude)

    def scores_of(self, users: NDArray[np.int64], items: CSR) -> NDArray[np.float32]:
        """Return the scores of the entries of items [B, I], float32 [items.nnz]; see Part."""
        found, step = np.empty(items.nnz, np.float32), block_rows(items.n_columns)
        for start in range(0, len(users), step):
            for row, scores in enumerate(self.scores(users[start : start + step]), start):
                found[items.indptr[row] : items.indptr[row + 1]] = scores[items.row(row)]
        return found


class RivalEnsemble(Recommender):
    """See the module; without item features FREEDOM is no part.

    Attributes:
        models: the fitted parts by kind, those that weigh anything, the first part first.
        popularity: likewise; None if it weighs nothing.
        weights: c of each part; empty before a fit.
    """

    Config = RivalEnsembleConfig
    config: RivalEnsembleConfig
    title = "ensemble of rivals"
    reads = frozenset({"items"})
    is_random = True
    models: Mapping[str, Recommender] = MappingProxyType({})
    popularity: VectorScorer | None = None
    weights: Mapping[str, float] = MappingProxyType({})

    def _fit(self, data: FitData) -> None:
        """Fit every part and search the weights.

        Raises:
            TrainingError: there are no validation interactions to choose by.
        """
        R, progress = data.user_items, self.context.progress
        validation = Validation(R, data.required_valid("an ensemble chooses its weights by it"), data.seed)
        kinds = {**LINEAR, **(NETWORKS if self.config.networks else {})}
        models, reached = dict[str, Recommender](), dict[str, float]()
        for kind, settings in kinds.items():
            if data.items is None and kind == "freedom":
                progress("no FREEDOM: there are no item vectors", 1, 1)
                continue
            fitted = (self._part(kind, one, data) for one in settings)
            _, models[kind] = validation.best(kind, fitted, progress)
            reached[kind] = max(one.ndcg for one in validation.judgments[-len(settings) :])
        popularity = standardize(log_popularity(R))
        first, *others = sorted(models, key=lambda kind: -reached[kind])
        parts: list[Part] = [*(ModelPart(models[kind]) for kind in others), popularity]
        _, (*found, share) = choose_weights([ModelPart(models[first])], parts, validation, progress)
        self.weights = {first: 1.0, **dict(zip(others, found, strict=True)), POPULARITY: share}
        self.models = {kind: models[kind] for kind in (first, *others) if self.weights[kind]}
        self.popularity = popularity if share else None

    def _part(self, kind: str, settings: Settings, data: FitData) -> Recommender:
        """Return a fitted model of a kind."""
        context = replace(self.context, checkpoint=None, earlier=None)  # one file is not for two networks
        model = registry.find(kind)(registry.read_settings({"kind": kind, **settings}), context=context)
        return model.fit(
            data.user_items, item_features=data.items, user_features=data.users, valid=data.valid, seed=data.seed
        )

    def scores(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]; see Recommender.

        Raises:
            InputError: the model is not fitted.
        """
        if not self.weights:
            raise InputError("this model is not fitted; call fit() first")
        rows = user_rows(users)
        total = sum(self.weights[kind] * ModelPart(model).scores(rows) for kind, model in self.models.items())
        if self.popularity is not None:
            total += self.weights[POPULARITY] * self.popularity.scores(rows)
        return np.asarray(total, np.float32)

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return similar items by the first part; see Recommender."""
        return next(iter(self.models.values())).similar_items(items, k)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items() if weight)

    def write_files(self, path: FilePath) -> list[str]:
        """Write rivals.json, and each part's files under their names after the part's."""
        names = ["rivals.json"]
        storage.write_json(
            path("rivals.json"),
            {
                "weights": dict(self.weights),
                "settings": {kind: model.config.model_dump(mode="json") for kind, model in self.models.items()},
            },
        )
        for kind, model in self.models.items():
            names += [f"{kind}-{name}" for name in model.write_files(_under(path, kind))]
        if self.popularity is not None:
            for name, table in (("users", self.popularity.users), ("items", self.popularity.items)):
                storage.write_array(path(f"{POPULARITY}-{name}.npy"), table)
                names.append(f"{POPULARITY}-{name}.npy")
        return names

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        notes = storage.read_json(path("rivals.json"))
        self.weights = {str(name): float(weight) for name, weight in notes["weights"].items()}
        self.models = {
            str(kind): registry.find(kind)(registry.read_settings(settings)).read_files(_under(path, kind))
            for kind, settings in notes["settings"].items()
        }
        if self.weights[POPULARITY]:
            users, items = (np.array(storage.read_array(path(f"{POPULARITY}-{n}.npy"))) for n in ("users", "items"))
            self.popularity = VectorScorer(users, items)
        return self


def _under(path: FilePath, kind: str) -> FilePath:
    """Return where a part's file lies."""
    return lambda name: path(f"{kind}-{name}")
