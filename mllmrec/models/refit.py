"""Fit the ensemble again on a grown dataset, from an earlier fit: its choices stand, its factors go on.

    chosen before    the parts, their weights, the strengths of ridge and factors, the width of the filter
    solved again     the ridge on the chosen table, the filter, the means of the users' items
    goes on          the factors: a few iterations from the earlier ones; those of new items are predicted

Nothing is validated, and parts of weight 0 are not fitted: that is most of a fit's time. Whether the choices still
are the best, only a fit from nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mllmrec_kernels import CSR

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.foundation.progress import Progress
from mllmrec.models.base import FitData
from mllmrec.models.baselines import log_popularity
from mllmrec.models.content import LeaveOneOutRegression
from mllmrec.models.ensemble_firsts import FirstPart, first_weights, other_weights
from mllmrec.models.fitted_ensemble import EnsembleConfig, FittedEnsemble
from mllmrec.models.gfcf import graph_filter
from mllmrec.models.ials import WARM_ITERATIONS, alternate, pair_weight
from mllmrec.models.recency import aged_rows
from mllmrec.models.ridge import ridge_support, ridge_weights
from mllmrec.models.scoring import VectorScorer

if TYPE_CHECKING:
    import torch


def can_go_on(earlier: object, config: EnsembleConfig, data: FitData, histories: Histories | None = None) -> bool:
    """Tell whether an earlier fit has what a refit needs, for the same settings and fewer or as many users and items.

    Args:
        earlier: any model, or None.
        config: of the refit.
        data: of the refit.
        histories: its training histories; None: no order is known.
    """
    if not isinstance(earlier, FittedEnsemble) or earlier.config != config or earlier.first_settings is None:
        return False
    reads_order = earlier.first_settings.reads_order or earlier.content_half_life
    if reads_order and (histories is None or histories.times is None):
        return False
    if earlier.factor_settings is None or sum(earlier.widths.values()) != earlier.rest.items.shape[1]:
        return False
    before = earlier.ridge.sums.user_items.shape
    grown = before[0] <= data.user_items.n_rows and before[1] <= data.user_items.n_columns
    items, users = data.items_or_zeros(), data.users
    for name in ("content", "profile"):
        if earlier.widths.get(name, items.shape[1]) != items.shape[1]:
            return False
    has_profiles = users is not None and users.shape[1] == items.shape[1]
    return grown and ("profile" not in earlier.widths or has_profiles)


def refit_parts(
    earlier: FittedEnsemble,
    data: FitData,
    Z: Callable[[], Vectors],
    histories: Histories | None,
    progress: Progress,
) -> Mapping[str, VectorScorer]:
    """Return the parts that the earlier fit weighed, by name, in its order; none is on a scale yet.

    Args:
        earlier: checked by `can_go_on`.
        data: training interactions, vectors and seed.
        Z: returns the projected item vectors.
        histories: the training histories; None: no order is known.
        progress: called while factors are fitted.
    """
    R, items = data.user_items, data.items_or_zeros()
    parts, stop = dict[str, VectorScorer](), 0
    for name, width in earlier.widths.items():
        start, stop = stop, stop + width
        match name:
            case "factors":
                columns = earlier.rest.items[:, start:stop]
                parts[name] = _factors(earlier, columns, R, LeaveOneOutRegression(Z()), data.seed, progress)
            case "graph filter":
                parts[name] = graph_filter(R, width)
            case "content":
                (rows,) = aged_rows(R, histories, [earlier.content_half_life]).values()
                parts[name] = VectorScorer(mean_of_owned(items, rows), items)
            case "profile":
                assert data.users is not None
                parts[name] = VectorScorer(data.users, items)
            case "popularity":
                parts[name] = log_popularity(R)
    return parts


def _factors(
    earlier: FittedEnsemble, start: Vectors, R: CSR, content: LeaveOneOutRegression, seed: int, progress: Progress
) -> VectorScorer:
    """Return factors that go on from those of the earlier fit, float32 [J, r]."""
    assert earlier.factor_settings is not None
    share, regularization = earlier.factor_settings
    return alternate(
        R,
        factors=start.shape[1],
        unobserved_weight=_unobserved_weight(earlier, share),
        regularization=regularization,
        iterations=WARM_ITERATIONS,
        seed=seed,
        content=content,
        start=start,
        progress=progress,
        label="fit factors, from earlier ones",
    )


def same_weight(earlier: FittedEnsemble, R: CSR) -> tuple[float, float]:
    """Return a and lambda of the factors on other interactions [U, I], for the same unobserved weight."""
    assert earlier.factor_settings is not None
    share, regularization = earlier.factor_settings
    return pair_weight(R, _unobserved_weight(earlier, share)), regularization


def _unobserved_weight(earlier: FittedEnsemble, share: float) -> float:
    before = earlier.ridge.sums.user_items
    return float(share * before.shape[0] * before.shape[1] / max(1, before.nnz))


def refit_first(
    earlier: FittedEnsemble,
    data: FitData,
    Z: Callable[[], Vectors],
    histories: Histories | None,
    device: torch.device,
    progress: Progress,
) -> FirstPart:
    """Return the first part with the settings that the earlier fit chose.

    Args:
        earlier: checked by `can_go_on`.
        data: training interactions and vectors.
        Z: returns the projected item vectors.
        histories: the training histories; None: no order is known.
        device: where neighbors are searched and regressions solved.
        progress: called while it works.
    """
    settings, config, R = earlier.first_settings, earlier.config, data.user_items
    assert settings is not None
    items, ridges = data.items_or_zeros(), []
    progress("search neighbors", 0, 1)
    support = ridge_support(items, R, config.cooccurrence_support, config.semantic_support, device)
    progress("search neighbors", 1, 1)
    for table, content_weight, regularization in settings.ridges:
        vectors, strengths = Z() if table else items, [(content_weight, regularization)]
        ridges += ridge_weights(vectors, R, support, strengths, device, progress)
    others = other_weights(tuple(settings.shares), R, histories)
    (rows,) = aged_rows(R, histories, [settings.half_life]).values()
    return FirstPart(settings, partial(first_weights, settings.shares, ridges, others, R), rows)
