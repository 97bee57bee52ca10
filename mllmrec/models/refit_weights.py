"""The item-item weights of an ensemble, solved again only for the items that changed (refit.py).

W is a sum over matrices W_k of c_k W_k / s_k (ensemble_firsts.py). With E the items that are fitted again:

    columns of E                 solved on the data of today, with the earlier c_k / s_k
    rows of items sold anew      the items that had no training user when they were last fitted: below
    all others                   the earlier ones

An item k that is sold anew has a column, and other items' columns should hold it too: W_kj is what owning k adds to j.
A regression on all items has a symmetric inverse P of its Gram matrix, and W_kj = -P_kj / P_jj. So

    W_kj = W_jk P_kk / P_jj.

1 / P_jj is the part of G_jj that the other items do not explain. It is taken as n_j + w + lambda, for n_j users: G_jj
with lambda. Item-kNN and transitions give such rows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from mllmrec_kernels.mixed.weighted_sum import weighted_sum
from numpy.typing import NDArray

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress
from mllmrec.graph import neighbors
from mllmrec.graph.neighbors import WideLists
from mllmrec.models.base import Refitted
from mllmrec.models.ensemble_firsts import RIDGE, other_weights
from mllmrec.models.fitted_ensemble import FittedEnsemble
from mllmrec.models.refit import count_users, lengthen
from mllmrec.models.ridge import join_lists, solve_ridges

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class WeightRefit:
    """Solve columns of W again.

    Attributes:
        earlier: checked by `can_go_on`.
        user_items: R, binary [U, I].
        changed: E.
        histories: the training histories; None: no order is known.
        device: where neighbors are searched and regressions solved; None: on the CPU.
        wide: lists that the item graph has searched; None: they are searched here.
        progress: called while it works.
    """

    earlier: FittedEnsemble
    user_items: CSR
    changed: Refitted
    histories: Histories | None
    device: torch.device | None
    wide: WideLists | None
    progress: Progress

    def weights(self, tables: tuple[Vectors, ...]) -> CSR:
        """Return W, [I, I].

        Args:
            tables: item vectors, and their projection where a ridge reads it, float32 [I, d] each.
        """
        earlier, R, E = self.earlier, self.user_items, self.changed.items
        settings, before, n = earlier.first_settings, earlier.ridge.sums.weights, R.n_columns
        assert settings is not None
        assert earlier.fitted_users is not None
        assert isinstance(before, CSR)
        counts, fitted = count_users(R), lengthen(earlier.fitted_users, n)
        is_column, is_row = (np.zeros(n, bool) for _ in range(2))
        is_column[E] = True
        is_row[E[(fitted[E] == 0) & (counts[E] > 0)]] = True
        indptr = np.concatenate([before.indptr, np.full(n - before.n_rows, before.nnz)])
        kept = _only(CSR(indptr, before.indices, before.data, n), is_row, is_column, again=False)
        if not len(E):
            return kept
        parts = [(1.0, kept)]
        if settings.ridges:
            parts.append((1.0, CSR.from_scipy(self._ridges(tables, is_column, is_row, counts))))
        names = [name for name in settings.shares if name != RIDGE]
        others = other_weights(names, R, self.histories)
        for scale, name in zip(settings.scales[len(settings.ridges) :], names, strict=True):
            parts.append((scale, _only(others[name], is_row, is_column, again=True)))
        return weighted_sum(parts)

    def _ridges(
        self,
        tables: tuple[Vectors, ...],
        is_column: NDArray[np.bool_],
        is_row: NDArray[np.bool_],
        counts: NDArray[np.int64],
    ) -> sp.csr_array:
        """Return the sum of the ridges in the columns of E, and in the rows of items sold anew.

        Args:
            tables: see weights.
            is_column: bool [I], E.
            is_row: bool [I], items that are sold anew.
            counts: int64 [I], training users.
        """
        settings, n = self.earlier.first_settings, len(counts)
        assert settings is not None
        support = self._support(tables[0], self.changed.items)
        used, strengths = settings.ridges, sorted({(w, strength) for _, w, strength in settings.ridges})
        chosen = sorted({table for table, _, _ in used})
        solved = solve_ridges(
            [tables[table] for table in chosen], self.user_items, support, strengths, self.device, self.progress
        )
        values, mirrored = (np.zeros(support.nnz, np.float32) for _ in range(2))
        owners, sources = support.rows(), support.indices
        for scale, (table, w, strength) in zip(settings.scales, used, strict=False):
            own = np.float32(scale) * solved[chosen.index(table), strengths.index((w, strength))]
            values += own
            mirrored += own * ((counts[sources] + w + strength) / (counts[owners] + w + strength)).astype(np.float32)
        columns = sp.csr_array((values, (sources, owners)), shape=(n, n))
        rows = is_row[owners] & ~is_column[sources]
        return columns + sp.csr_array((mirrored[rows], (owners[rows], sources[rows])), shape=(n, n))

    def _support(self, vectors: Vectors, items: NDArray[np.int64]) -> CSR:
        """Return the items that some items are regressed on, binary [I, I]; other rows are empty.

        Args:
            vectors: float32 [I, d].
            items: int64, ascending.
        """
        config, R = self.earlier.config, self.user_items
        self.progress("search neighbors", 0, 1)
        lists = []
        if config.cooccurrence_support:
            search = self.wide.of_users if self.wide is not None else neighbors.by_users
            lists.append(search(R, config.cooccurrence_support, self.device)[0][items])
        if config.semantic_support:
            lists.append(neighbors.search_rows(vectors, items, config.semantic_support)[0])
        self.progress("search neighbors", 1, 1)
        rows = join_lists(lists or [np.empty((len(items), 0), np.int32)], R.n_columns)
        lengths = np.zeros(R.n_columns, np.int64)
        lengths[items] = np.diff(rows.indptr)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return CSR(indptr, rows.indices, None, R.n_columns)


def _only(matrix: CSR, is_row: NDArray[np.bool_], is_column: NDArray[np.bool_], *, again: bool) -> CSR:
    """Return a matrix with the entries that are in some rows or columns alone, or with all others.

    Args:
        matrix: [I, I].
        is_row: bool [I].
        is_column: bool [I].
        again: whether these entries are returned, or all others.
    """
    found = is_column[matrix.indices]
    found |= np.repeat(is_row, np.diff(matrix.indptr))
    places = np.flatnonzero(found if again else ~found)
    ends = np.searchsorted(places, matrix.indptr)
    return CSR(ends, matrix.indices[places], matrix.values()[places], matrix.n_columns)
