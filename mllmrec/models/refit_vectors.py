"""The inner products of an ensemble, solved again only where users or items changed (refit.py).

With E the items that are fitted again and D such users, from the earlier tables p and q:

    factors       p of all users given q; q_E given p, shrunk to what vectors predict; p_D given the new q
    graph filter  one step of subspace iteration: V_E = (R~^T R~ V)_E / eigenvalues; then the users' side of D
    content       means of D's items
    profile       profiles of D
    popularity    log (1 + training users) of E

A user of D is put over the spread of the new scores. All other rows are the earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mllmrec_kernels import CSR

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.models.base import FitData, Refitted
from mllmrec.models.content import LeaveOneOutRegression
from mllmrec.models.ensemble_weights import item_covariance, over_spread
from mllmrec.models.fitted_ensemble import FittedEnsemble
from mllmrec.models.gfcf import normalize_bipartite
from mllmrec.models.ials import pair_weight, solve_side
from mllmrec.models.new_item_model import NEW_ITEMS
from mllmrec.models.recency import aged_rows
from mllmrec.models.refit import count_users, lengthen
from mllmrec.models.scoring import VectorScorer

Part = tuple[Vectors, Vectors]  # of the users of D, [D, r], and of all items, [I, r]


@dataclass(frozen=True, slots=True)
class VectorRefit:
    """Solve parts again.

    Attributes:
        earlier: checked by `can_go_on`.
        data: of the refit.
        changed: D and E.
        projected: item vectors that factors are predicted from, float32 [I, r].
        histories: the training histories; None: no order is known.
        factor_settings: a and lambda of the factors.
    """

    earlier: FittedEnsemble
    data: FitData
    changed: Refitted
    projected: Vectors
    histories: Histories | None
    factor_settings: tuple[float, float]

    def tables(self) -> VectorScorer:
        """Return the tables of all parts, columns as in the earlier ones; new items have an offset of 0."""
        R, before = self.data.user_items, self.earlier.rest
        users, items = (lengthen(table, n) for table, n in zip((before.users, before.items), R.shape, strict=True))
        stop = 0
        for name, width in self.earlier.widths.items():
            start, stop = stop, stop + width
            if name == NEW_ITEMS:
                users[self.changed.users, start], items[self.changed.items, start] = 1, 0
                continue
            vectors, items[:, start:stop] = self._part(name, np.ascontiguousarray(items[:, start:stop]))
            scaled = over_spread(vectors, item_covariance(np.ascontiguousarray(items[:, start:stop])))
            users[self.changed.users, start:stop] = np.float32(self.earlier.weights[name]) * scaled
        return VectorScorer(users, items)

    def _part(self, name: str, q: Vectors) -> Part:
        R, D, E = self.data.user_items, self.changed.users, self.changed.items
        vectors = self.data.items_or_zeros()
        match name:
            case "factors":
                return self._factors(q)
            case "graph filter":
                return self._filter(q)
            case "content":
                (rows,) = aged_rows(R, self.histories, [self.earlier.content_half_life]).values()
                return mean_of_owned(vectors, rows.take_rows(D)), vectors
            case "profile":
                assert self.data.users is not None
                return self.data.users[D], vectors
        q[E, 0] = np.log1p(count_users(R)[E])  # popularity
        return np.ones((len(D), 1), np.float32), q

    def _factors(self, q: Vectors) -> Part:
        R, D, E = self.data.user_items, self.changed.users, self.changed.items
        if not len(E):
            return solve_side(R.take_rows(D), q, *self.factor_settings), q
        content = LeaveOneOutRegression(self.projected)
        new = E[len(self.earlier.rest.items) <= E]
        q[new] = content.predict(q, new)
        p = solve_side(R, q, *self.factor_settings)
        q[E] = solve_side(R.transpose().take_rows(E), p, *self.factor_settings, content.predict(q, E))
        return solve_side(R.take_rows(D), q, *self.factor_settings), q

    def _filter(self, q: Vectors) -> Part:
        R, D, E = self.data.user_items, self.changed.users, self.changed.items
        fitted = self.earlier.fitted_users
        assert fitted is not None
        degrees = np.maximum(lengthen(fitted, R.n_columns), 1).astype(np.float64)
        V = q / degrees[:, None] ** 0.5
        if len(E):
            scaled, by_item = normalize_bipartite(R.to_scipy().astype(np.float64))
            smooth = scaled @ V
            eigenvalues = (smooth**2).sum(axis=0) / np.maximum((V**2).sum(axis=0), np.finfo(np.float64).tiny)
            V[E] = (scaled.T.tocsr()[E] @ smooth) / np.maximum(eigenvalues, np.finfo(np.float64).tiny)
            degrees[E] = by_item[E]
            q[E] = V[E] * degrees[E, None] ** 0.5
        return np.asarray(R.take_rows(D).to_scipy() @ (V / degrees[:, None] ** 0.5), np.float32), q


def same_weight(earlier: FittedEnsemble, R: CSR) -> tuple[float, float]:
    """Return a and lambda of the factors on other interactions [U, I], for the same unobserved weight."""
    assert earlier.factor_settings is not None
    share, regularization = earlier.factor_settings
    return share * pair_weight(R, 1.0) / pair_weight(earlier.ridge.known_interactions(), 1.0), regularization
