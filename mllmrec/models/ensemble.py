"""The default model: closed forms that read different data, with weights that validation chooses.

docs/method.md, section 8. The parts, and what their score of an item for user u is:

    ridge         R_u W, each item regressed on its neighbors (ridge.py), alone or in a sum (ensemble_firsts.py)
    factors       p_u . q_i by alternating least squares, items shrunk to what their vectors predict (ials.py)
    graph filter  the smooth part of the user-item graph (gfcf.py)
    content       cosine of the item's vector to the mean of the user's items
    profile       cosine of the item's vector to the user's own profile, where it is not that mean
    popularity    log (1 + training users)

    score_u = R_u W / sd(R_u W) + sum over parts k of c_k s_k,u / sd(s_k,u),   sd over the catalogue.

A part with settings (strengths of the ridge, strength and width of the factors, width of the filter) takes the best of
two to four by its own validation NDCG@20. Then the c_k are searched (ensemble_weights.py). The factors read a learned
projection of the item vectors (content.py). There are two ridges, on the vectors and on the projection. W is chosen
among the ridges, their sums with other item-item weights, and item-kNN alone: the one whose ensemble is best. Where
interactions have an order, transitions are among these weights, and older items may weigh less in R_u and in the
content part. Training interactions fit, validation chooses, test is never read.

All parts but the ridge are inner products. So the fitted model is the ridge and two tables of vectors, with c_k / sd
folded into the users'. Memory: I x K and (U + I) x width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import single_threaded_blas
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.foundation.beside import start_beside
from mllmrec.foundation.environment import find_gpu
from mllmrec.foundation.memory import drop_pages, release_memory
from mllmrec.models.base import FitData
from mllmrec.models.baselines import log_popularity
from mllmrec.models.content import LeaveOneOutRegression, Projection
from mllmrec.models.ensemble_factors import FACTOR_STRENGTHS, NARROW, choose_factors
from mllmrec.models.ensemble_firsts import (
    KNN,
    RIDGE,
    TRANSITIONS,
    FirstPart,
    RidgeSettings,
    first_parts,
    other_weights,
)
from mllmrec.models.ensemble_weights import choose_weights, standardize
from mllmrec.models.fitted_ensemble import EnsembleConfig as EnsembleConfig
from mllmrec.models.fitted_ensemble import FittedEnsemble
from mllmrec.models.gfcf import graph_filter, narrow
from mllmrec.models.gpu_parts import place_part
from mllmrec.models.ials import pair_weight
from mllmrec.models.new_item_placement import of_known_items
from mllmrec.models.recency import aged_rows
from mllmrec.models.refit import can_go_on, count_users, find_changes, grow_counts
from mllmrec.models.refit_vectors import VectorRefit, same_weight
from mllmrec.models.refit_weights import WeightRefit
from mllmrec.models.ridge import Strengths, ridge_support, solve_ridges
from mllmrec.models.ridge_strengths import fit_ridges
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import Validation
from mllmrec.models.weight_scorers import StandardizedScorer

if TYPE_CHECKING:
    import torch


RIDGE_STRENGTHS = ((20.0, 50.0), (40.0, 200.0))  # w and lambda
_FILTER_SHARES = (4, 2, 1)  # the filter has the width of narrow factors over one of them; wider ones lose
_ROWS = 1 << 14  # of two tables compared at once
_SAME = 1e-5  # vectors closer than this are the same


class Ensemble(FittedEnsemble):
    """See the module; without features, the parts that read them count nothing."""

    Config = EnsembleConfig
    config: EnsembleConfig
    title = "ensemble"
    reads = frozenset({"items", "users"})
    is_random = goes_on = True

    def _fit(self, data: FitData) -> None:
        """Fit all parts and choose their weights.

        Raises:
            TrainingError: there are no validation interactions to choose by.
            ConfigError: train.device asks for a GPU that is not there.
        """
        with single_threaded_blas():  # the number of its threads changes the last bits of a product
            self._fit_all(data)

    def _fit_all(self, data: FitData) -> None:
        R = data.user_items
        self._forget_new_users()
        device = find_gpu(self.context.train.device, "train.device")
        earlier = self.context.earlier
        if isinstance(earlier, FittedEnsemble) and can_go_on(earlier, self.config, data, self.context.histories):
            self._go_on(earlier, data, device)
            self.context = replace(self.context, earlier=None)  # its tables are as large as these
            return
        self.refitted = None
        held = data.required_valid("the ensemble chooses its weights by it (model.kind=ridge needs none)")
        held = of_known_items(held, R)
        self._fit_known_items(data, held, device)
        release_memory()
        self.fit_new_items(data, held, self.config.new_items)

    def _fit_known_items(self, data: FitData, held: CSR, device: torch.device | None) -> None:
        """Fit all parts and choose their weights; candidates that were not chosen end with this call.

        Args:
            data: training interactions, vectors and seed.
            held: binary [U, I], validation interactions with known items.
            device: where neighbors are searched and regressions solved; None: on the CPU.
        """
        R, progress, items = data.user_items, self.context.progress, data.items_or_zeros()
        blocks = self.context.blocks
        validation = Validation(R, held, data.seed, lambda part: place_part(part, device, blocks))
        tables = self._tables(items, R)
        rows = aged_rows(R, self.context.histories, self.config.half_lives)
        parts = self._fit_parts(data, validation, items, tables[-1], rows)
        release_memory()
        ridges = {} if self._leaves_out(RIDGE) else self._fit_ridges(validation, tables, device)
        del tables  # the projection is as large as the item vectors, and nobody reads it any more
        names = (KNN, TRANSITIONS) if len(rows) > 1 else (KNN,)
        kept = [name for name in names if not self._leaves_out(name)]
        others = other_weights(kept, R, self.context.histories, blocks)
        firsts = first_parts(ridges, others, rows, validation, progress)
        release_memory()
        candidates = [place_part(_standardized(first), device, blocks) for first in firsts]
        in_place = [place_part(part, device, blocks) for part in parts.values()]
        best, weights = choose_weights(candidates, in_place, validation, progress)
        del candidates, in_place  # they hold parts that are about to be joined
        chosen = firsts[best]
        ridge = self._empty_ridge().set_weights(R, chosen.weights, chosen.rows, chosen.settings.half_life)
        self.first_settings = chosen.settings
        self.weights = {RIDGE: 0.0, **chosen.settings.shares, **dict(zip(parts, weights, strict=True))}
        self.widths = {name: part.items.shape[1] for name, part in parts.items() if self.weights[name]}
        del chosen, firsts, ridges, others  # before the parts are copied
        release_memory()
        self.rest, self.ridge = _join(parts, self.weights, R.shape), ridge
        self.sample, self.fitted_users = validation.record, count_users(R).astype(np.int32)

    def _go_on(self, earlier: FittedEnsemble, data: FitData, device: torch.device | None) -> None:
        """Keep an earlier fit where nothing changed; see refit.py."""
        R, context, features = data.user_items, self.context, data.items_or_zeros()
        self.refitted = changed = find_changes(earlier, data)
        self.projection, self.weights, self.widths = earlier.projection, earlier.weights, earlier.widths
        self.first_settings, self.content_half_life = earlier.first_settings, earlier.content_half_life
        self.factor_settings = same_weight(earlier, R)
        assert self.first_settings is not None
        tables = (features,) if self.projection is None else (features, self.projection(features))
        self.rest = VectorRefit(earlier, data, changed, tables[-1], context.histories, self.factor_settings).tables()
        weights = WeightRefit(earlier, R, changed, context.histories, device, context.wide, context.progress)
        (rows,) = aged_rows(R, context.histories, [self.first_settings.half_life]).values()
        self.ridge = self._empty_ridge().set_weights(R, weights.weights(tables), rows, self.first_settings.half_life)
        self.fitted_users = grow_counts(earlier, R, changed.items)
        self.grow_new_items(earlier, data, changed.items)

    def _leaves_out(self, part: str) -> bool:
        return part in self.config.left_out

    def _tables(self, items: Vectors, user_items: CSR) -> tuple[Vectors, ...]:
        """Return the item vectors and, unless it is left out, their projection."""
        self.projection = None
        if not self._leaves_out("projection"):
            self.context.progress("project vectors", 0, 1)
            self.projection = Projection.of(items, user_items, self.context.blocks)
            self.context.progress("project vectors", 1, 1)
        return (items,) if self.projection is None else (items, self.projection(items))

    def _fit_parts(
        self, data: FitData, validation: Validation, items: Vectors, Z: Vectors, rows: Mapping[float, CSR]
    ) -> dict[str, VectorScorer]:
        """Return every part but the ridge by its name, each on one scale.

        Args:
            data: training interactions, profiles of the users, seed.
            validation: the users to choose settings by.
            items: float32 [I, d].
            Z: float32 [I, r], projected item vectors.
            rows: of the users for each half-life.
        """
        progress, width, blocks = self.context.progress, self.config.factors, self.context.blocks
        R, profiles, parts = data.user_items, data.users, dict[str, VectorScorer]()
        strength, r = FACTOR_STRENGTHS[0], min(width or NARROW, NARROW)
        widest = None if self._leaves_out("graph filter") else start_beside(graph_filter, R, r, blocks)
        wait([widest] if blocks and widest else [])  # workers have one work at a time
        if not self._leaves_out("factors"):
            content = LeaveOneOutRegression(Z)
            strength, parts["factors"] = choose_factors(content, width, validation, self.context)
        self.factor_settings = pair_weight(R, strength[0]), strength[1]
        if widest:
            filters = (narrow(widest.result(), max(1, r // share)) for share in _FILTER_SHARES)
            parts["graph filter"] = validation.best("graph filters", filters, progress)[1]
        means = mean_of_owned(items, R)
        if not self._leaves_out("content"):
            contents = (VectorScorer(means if row is R else mean_of_owned(items, row), items) for row in rows.values())
            aged, parts["content"] = validation.best("content", contents, progress)
            self.content_half_life = list(rows)[aged]
        if profiles is not None and profiles.shape == means.shape and not _are_same(profiles, means):
            parts["profile"] = VectorScorer(profiles, items)
        elif profiles is not None:
            drop_pages(profiles)
        del means
        parts["popularity"] = log_popularity(R)
        return {name: standardize(parts.pop(name)) for name in list(parts) if not self._leaves_out(name)}

    def _fit_ridges(
        self, validation: Validation, tables: Sequence[Vectors], device: torch.device | None
    ) -> dict[RidgeSettings, CSR]:
        """Return weights by their settings, the best on each table of vectors, all on the neighbors by the first.

        Args:
            validation: chooses the strengths.
            tables: float32 [I, d] each.
            device: where neighbors are searched and regressions solved; None: on the CPU.
        """
        progress, config, R = self.context.progress, self.config, validation.train
        blocks = self.context.blocks
        progress("search neighbors", 0, 1)
        widths, wide = (config.cooccurrence_support, config.semantic_support), self.context.wide
        support = ridge_support(tables[0], R, *widths, device, blocks, wide)
        if wide is not None:
            wide.forget()
        progress("search neighbors", 1, 1)

        def solve(used: Sequence[Vectors], on: CSR, strengths: Strengths) -> NDArray[np.float32]:
            return solve_ridges(used, R, on, strengths, device, progress, blocks)

        fitted = fit_ridges(validation, tables, support, RIDGE_STRENGTHS, solve, progress)
        return {(n, *RIDGE_STRENGTHS[chosen]): W for n, (chosen, W) in enumerate(fitted)}


def _are_same(one: Vectors, other: Vectors) -> bool:
    """Return whether two tables [U, d] differ by rounding alone."""
    starts = range(0, len(one), _ROWS)
    return all(np.allclose(one[at : at + _ROWS], other[at : at + _ROWS], atol=_SAME) for at in starts)


def _no_parts(shape: tuple[int, int]) -> VectorScorer:
    """Return tables of no width, for [U, I]."""
    return VectorScorer(*(np.zeros((n, 0), np.float32) for n in shape))


def _standardized(first: FirstPart) -> StandardizedScorer:
    """Return the standardized scores of a candidate."""
    return StandardizedScorer(first.scorer, _no_parts(first.scorer.user_items.shape))


def _join(parts: dict[str, VectorScorer], weights: Mapping[str, float], shape: tuple[int, int]) -> VectorScorer:
    """Return the weighted sum of the parts that weigh anything, as one pair of tables for [U, I].

    Args:
        parts: by name; taken out, so that no part is in memory beside its copy for longer than it takes.
        weights: of each, by name.
        shape: (U, I).
    """
    width = sum(part.items.shape[1] for name, part in parts.items() if weights[name])
    users, items = (np.empty((n, width), np.float32) for n in shape)
    stop = 0
    for name in list(parts):
        part, weight = parts.pop(name), weights[name]
        if weight:
            start, stop = stop, stop + part.items.shape[1]
            np.multiply(part.users, np.float32(weight), out=users[:, start:stop])
            items[:, start:stop] = part.items
    return VectorScorer(users, items)
