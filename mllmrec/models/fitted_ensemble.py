"""The fitted ensemble: a ridge and two tables of vectors, in which every part has columns (ensemble.py).

    score_u = R_u W / sd(R_u W) + p_u . q_i,   p and q the columns of all parts that weigh anything

`widths` says which columns belong to which part. So users and items that the fit did not know are placed part by part
(new_users.py, new_items.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedIndex
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator
from safetensors.numpy import load_file, save_file

from mllmrec.config import Count, ModelConfig, Share
from mllmrec.errors import InputError, NotFittedError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, Refitted
from mllmrec.models.content import Projection
from mllmrec.models.ensemble_firsts import FirstSettings
from mllmrec.models.new_item_model import NEW_ITEMS, NewItemModel
from mllmrec.models.new_items import extend_rows
from mllmrec.models.new_users import UserSide, place_users, standard_side
from mllmrec.models.recency import HalfLives
from mllmrec.models.ridge import ItemGraphRidge, RidgeConfig
from mllmrec.models.scoring import Lists, VectorScorer
from mllmrec.models.validation import sample_summary
from mllmrec.models.weight_scorers import FEW_USERS, StandardizedScorer, top_one_by_one

PartName = Literal[
    "ridge", "item-kNN", "transitions", "projection", "factors", "graph filter", "content", "profile", "popularity"
]
_VECTOR_PARTS = ("content", "profile")  # whose item columns are the item vectors themselves


class EnsembleConfig(ModelConfig):
    """Settings of the ensemble."""

    kind: Literal["ensemble"] = "ensemble"
    cooccurrence_support: Count = 100  # the ridge's neighbors by Jaccard
    semantic_support: Count = 100  # the ridge's neighbors by cosine
    factors: Count = 0  # width of the factors; 0: 64, or 256 where validation finds it better (ensemble_factors.py)
    half_lives: HalfLives = (0.0, 2.0, 4.0, 8.0, 16.0)  # of a user's items; validation chooses; 0 alone: no time
    new_items: Share = 0.03  # known items may lose this share of their hits to new ones; 0: new items are not shown
    left_out: tuple[PartName, ...] = ()  # parts that are not fitted, for an ablation; projection: of item vectors

    @model_validator(mode="after")
    def _check_left_out(self) -> Self:
        if {"ridge", "item-kNN"} <= set(self.left_out):
            raise ValueError("ridge and item-kNN cannot both be left out: one of them is the first part")
        return self

    def identity(self) -> dict[str, Any]:
        """Return every setting; without parts left out those of earlier versions, whose fits are the same."""
        return self.model_dump(exclude=set() if self.left_out else {"left_out"})


class FittedEnsemble(NewItemModel):
    """See the module.

    Attributes:
        ridge: the fitted ridge; its weights may be those of item-kNN, or a sum (ensemble_firsts.py).
        rest: the other parts, float32 [U, D] and [I, D]; their weights and scales are in the users' table.
        weights: c of each part by its name; those of one W are its shares; empty before a fit.
        widths: columns of `rest` by part, in their order.
        factor_settings: a and lambda of the factors; None of files that do not have them.
        sample: the users that judged, and the result of each candidate; empty if all users judged.
        first_settings: what W is made of; None of files that do not say it.
        content_half_life: of the users' items in the content part; 0: none.
        fitted_users: int32 [I], training users of each item when it was last fitted; None of files without them.
        projection: of item vectors; None where it is left out, and of files that do not have it.
    """

    config: EnsembleConfig
    derived = ("_user_sides", "_index", "_scorer")
    ridge: ItemGraphRidge
    rest: VectorScorer
    weights: Mapping[str, float] = MappingProxyType({})
    widths: Mapping[str, int] = MappingProxyType({})
    factor_settings: tuple[float, float] | None = None
    first_settings: FirstSettings | None = None
    content_half_life: float = 0.0
    fitted_users: NDArray[np.int32] | None = None
    projection: Projection | None = None
    sample: Mapping[str, Any] = MappingProxyType({})

    def _empty_ridge(self) -> ItemGraphRidge:
        config = RidgeConfig(
            cooccurrence_support=self.config.cooccurrence_support, semantic_support=self.config.semantic_support
        )
        return ItemGraphRidge(config, context=self.context)

    @property
    def scorer(self) -> StandardizedScorer:
        """The fitted parts.

        Raises:
            NotFittedError: there was no fit.
        """
        if not self.weights:
            raise NotFittedError
        scorer: StandardizedScorer | None = self.__dict__.get("_scorer")
        if scorer is None or scorer.weights is not self.ridge.sums or scorer.rest is not self.rest:
            self._scorer = scorer = StandardizedScorer(self.ridge.sums, self.rest)  # it keeps its items encoded
        return scorer

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        columns = self.widths.get("factors")  # None of files of earlier versions
        names = {"factors": f"factors of width {columns}"} if columns else {}
        mixed = ", ".join(f"{weight:g} {names.get(name, name)}" for name, weight in self.weights.items() if weight)
        before = ""
        if self.refitted is not None:
            (n_users, n_items), again = self.ridge.sums.user_items.shape, self.refitted
            before = (
                f"{len(again.items):,} of {n_items:,} items and {len(again.users):,} of {n_users:,} users are fitted "
                "again, all else is kept from an earlier fit"
            )
        notes = (mixed, self.ridge.summary, sample_summary(self.sample), before, self.new_items_summary)
        return "; ".join(text for text in notes if text)

    def _add_items(self, features: Vectors, shares: sp.csr_array) -> None:
        self._require_layout()
        rest, stop = extend_rows(self.rest.items, shares), 0
        for name, width in self.widths.items():
            start, stop = stop, stop + width
            if name in _VECTOR_PARTS:
                rest[-len(features) :, start:stop] = features
        self.rest = VectorScorer(self.rest.users, rest)
        ridge = copy(self.ridge)
        ridge._add_items(features, shares)
        self.ridge = ridge
        self._forget_new_users()
        first = len(rest) - len(features)
        if self.fitted_users is not None:
            self.fitted_users = np.concatenate([self.fitted_users, np.zeros(len(features), np.int32)])
        self.show_items(np.arange(first, len(rest)), features)

    def _require_layout(self) -> None:
        """Refuse a model that does not say which part each column of `rest` belongs to.

        Raises:
            InputError: it is not fitted, or its files are of an earlier version.
        """
        if not self.weights:
            raise NotFittedError
        if sum(self.widths.values()) != self.rest.items.shape[1]:
            raise InputError("this model's files do not say how to place new users and items; fit it again")

    @property
    def keeps_refits(self) -> bool:
        """Tell whether the model has what a fit that goes on from it needs; files of earlier versions do not."""
        first, R = self.first_settings, self.user_items
        if first is None or not first.scales or self.factor_settings is None or self.fitted_users is None or R is None:
            return False
        needs_projection = "factors" in self.widths or any(table for table, _, _ in first.ridges)
        has_projection = self.projection is not None or "projection" in self.config.left_out
        has_layout = sum(self.widths.values()) == self.rest.items.shape[1]
        return has_layout and len(self.fitted_users) == R.n_columns and (has_projection or not needs_projection)

    def _forget_new_users(self) -> None:
        self.release()

    def _fold_in(self, histories: CSR) -> StandardizedScorer:
        sums = self.ridge.weights_of(histories)
        vectors = [side(histories) for side in self._user_sides]
        none = np.zeros((histories.n_rows, 0), np.float32)
        return StandardizedScorer(sums, VectorScorer(np.concatenate([none, *vectors], axis=1), self.rest.items))

    def _top_new(self, histories: CSR, k: int, exclude: CSR) -> Lists:
        if not 0 < histories.n_rows <= FEW_USERS:
            return super()._top_new(histories, k, exclude)
        scorer = self._fold_in(histories)
        return top_one_by_one(self._index, histories, scorer.rest.users, k, exclude)

    @cached_property
    def _index(self) -> MixedIndex:
        """Return the items, encoded once for lists of one user at a time."""
        return MixedIndex(self.scorer.items)

    @cached_property
    def _user_sides(self) -> list[UserSide]:
        """Return the functions that place new users in the columns of `rest`, part by part."""
        self._require_layout()
        if self.factor_settings is None or self.user_items is None:
            raise InputError("this model's files do not have the settings of its factors; fit it again")
        sides, stop = [], 0
        for name, width in self.widths.items():
            start, stop = stop, stop + width
            tables = VectorScorer(self.rest.users[:, start:stop], self.rest.items[:, start:stop])
            side = place_users(name, tables, self.user_items, self.factor_settings)
            sides.append(side if name == NEW_ITEMS else standard_side(side, tables.items, self.weights[name]))
        return sides

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return similar items by the ridge's weights; see ItemWeightModel."""
        return self.ridge.similar_items(items, k)

    def write_files(self, path: FilePath) -> list[str]:
        """Write the ridge's files, parts.safetensors, ensemble.json and what new items are placed by."""
        names = [*self.ridge.write_files(path), *self.write_new_items(path)]
        with storage.atomic(path("parts.safetensors")) as temporary:
            save_file({"users": self.rest.users, "items": self.rest.items, **self._refit_tensors()}, temporary)
        notes = {
            "weights": dict(self.weights),
            "widths": dict(self.widths),
            "factor_settings": self.factor_settings,
            "first": self.first_settings.as_json() if self.first_settings else None,
            "content_half_life": self.content_half_life,
        }
        storage.write_json(path("ensemble.json"), notes | ({"sample": dict(self.sample)} if self.sample else {}))
        return [*names, "parts.safetensors", "ensemble.json"]

    def _refit_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a later fit goes on by, and what this one fitted again."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.fitted_users is not None:
            tensors["fitted_users"] = self.fitted_users
        if self.projection is not None:
            tensors |= {"projection_mean": self.projection.mean, "projection_axes": self.projection.axes}
        if self.refitted is not None:
            tensors |= {"refitted_users": self.refitted.users, "refitted_items": self.refitted.items}
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        tensors = load_file(path("parts.safetensors"))
        self.rest = VectorScorer(tensors["users"], tensors["items"])
        self.fitted_users = tensors.get("fitted_users")
        self.projection = self.refitted = None
        if "projection_mean" in tensors:
            self.projection = Projection(tensors["projection_mean"], tensors["projection_axes"])
        if "refitted_users" in tensors:
            self.refitted = Refitted(tensors["refitted_users"], tensors["refitted_items"])
        notes = storage.read_json(path("ensemble.json"))
        self.weights = {str(name): float(weight) for name, weight in notes["weights"].items()}
        self.sample = notes.get("sample", {})
        self.widths = {str(name): int(width) for name, width in notes.get("widths", {}).items()}
        share, regularization = notes.get("factor_settings") or (0, 0)
        self.factor_settings = (float(share), float(regularization)) if regularization else None
        first = notes.get("first")
        self.first_settings = FirstSettings.of_json(first) if first else None
        self.content_half_life = float(notes.get("content_half_life", 0.0))
        self.ridge = self._empty_ridge().read_files(path)
        self.user_items = self.ridge.user_items
        self.read_new_items(path)
        return self
