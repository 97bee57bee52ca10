"""Judge candidates by validation NDCG@20: on every user, or on a sample if there are many.

Up to SAMPLED_USERS users with training and validation items are all judged. Of more users, SAMPLED_USERS are drawn by
the seed of the fit. A mean over n of them has the standard error sd / sqrt(n).

On a sample, a candidate is compared with the best one before it on the same users. With d_u the difference of user u,
it is behind where mean(d) < -2 sd(d) / sqrt(n). Users are ranked in parts of growing size, and a candidate that is
behind after a part is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.evaluation import metrics
from mllmrec.evaluation.groups import ItemRanker
from mllmrec.evaluation.metrics import standard_error
from mllmrec.foundation.progress import Progress, silent, under

CUTOFF = 20
SAMPLED_USERS = 20_000  # judged at most
_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the sample, after each part
_ERRORS = 2.0  # standard errors that a candidate is behind by when it is given up
Values = NDArray[np.float64]
R = TypeVar("R", bound=ItemRanker)


@dataclass(frozen=True, slots=True)
class Judgment:
    """Hold the validation result of one candidate.

    Attributes:
        candidate: its name.
        ndcg: mean NDCG@20 over the users that it was judged on.
        standard_error: of that mean.
        users: judged before it was the best, or was given up.
    """

    candidate: str
    ndcg: float
    standard_error: float
    users: int


class Validation:
    """The users that judge, and what they said.

    Attributes:
        users: int64 [n], ascending.
        total: users with training and validation items; n of them judge.
        judgments: one a candidate, in the order that they were judged in.

    Args:
        train: binary [U, I], items that are not ranked.
        valid: binary [U, I], items to rank.
        seed: of the sample.
        ranker: returns what ranks in the place of a candidate, such as workers that do.
    """

    def __init__(
        self, train: CSR, valid: CSR, seed: int = 0, ranker: Callable[[Any], ItemRanker] = lambda candidate: candidate
    ) -> None:
        self._ranker = ranker
        self.train, self.valid, self.seed = train, valid, seed
        known = metrics.users_with_heldout(train, valid)
        self.total, self.judgments = len(known), list[Judgment]()
        self._parts = [known]
        if self.is_sampled:
            drawn = np.random.default_rng(seed).permutation(known)[:SAMPLED_USERS]
            ends = [0, *(round(share * len(drawn)) for share in _SHARES)]
            self._parts = [np.sort(drawn[start:stop]) for start, stop in pairwise(ends)]
        self.users = np.sort(np.concatenate(self._parts))

    def of(self, train: CSR, valid: CSR) -> Validation:
        """Return the validation of other matrices with the same seed and ranker; see the class."""
        return Validation(train, valid, self.seed, self._ranker)

    @property
    def is_sampled(self) -> bool:
        """Tell whether some users do not judge."""
        return self.total > SAMPLED_USERS

    @property
    def record(self) -> dict[str, Any]:
        """Return the sample and all judgments, JSON-like; empty if all users judge."""
        if not self.is_sampled:
            return {}
        sample = {"users": len(self.users), "of": self.total, "seed": self.seed}
        return sample | {"judgments": [asdict(one) for one in self.judgments]}

    def best(self, name: str, candidates: Iterable[R], progress: Progress = silent) -> tuple[int, R]:
        """Return index and value of the first candidate with the highest NDCG@20.

        Args:
            name: of the candidates, as progress and records say it.
            candidates: one is made after the other.
            progress: called while users are ranked.
        """
        reached, best_values = -1.0, None
        best: tuple[int, R] | None = None
        for n, candidate in enumerate(candidates):
            values, given_up = self._judge(self._ranker(candidate), best_values, under(progress, self._label(name, n)))
            ndcg = metrics.mean({"ndcg": values})["ndcg"]
            self._note(f"{name}, {n + 1}", values)
            if best is None or (not given_up and ndcg > reached):
                reached, best_values, best = ndcg, values, (n, candidate)
        if best is None:
            raise ValueError("there are no candidates")
        return best

    def _label(self, name: str, n: int) -> str:
        of = f" on {len(self.users):,} of {self.total:,} users" if self.is_sampled else ""
        return f"validate {name}, {n + 1}{of}"

    def _judge(self, candidate: ItemRanker, best_values: Values | None, progress: Progress) -> tuple[Values, bool]:
        """Return NDCG@20 of each user, float64 [U], NaN if not judged; and whether the candidate was given up."""
        if not self.is_sampled:
            return ndcg_by_user(candidate, self.train, self.valid, progress), False
        values = np.full(self.train.n_rows, np.nan)
        for part in self._parts:
            values[part] = ndcg_by_user(candidate, self.train, only_users(self.valid, part), progress)[part]
            if best_values is not None and is_behind(values - best_values):
                return values, True
        return values, False

    def _note(self, candidate: str, values: Values) -> None:
        judged = values[~np.isnan(values)]
        mean = float(judged.mean()) if len(judged) else 0.0
        self.judgments.append(Judgment(candidate, mean, standard_error(judged), len(judged)))


def sample_summary(record: Mapping[str, Any]) -> str:
    """Return what a record says of its sample, for a person; empty if all users judged."""
    if not record:
        return ""
    error = max(float(one["standard_error"]) for one in record["judgments"])
    return f"chosen on {record['users']:,} of {record['of']:,} validation users, standard error {error:.4f}"


def validation_ndcg(model: ItemRanker, train: CSR, valid: CSR) -> float:
    """Return NDCG@20 of a model, averaged over the users with validation and training items.

    Args:
        model: the model.
        train: binary [U, I], items that are not ranked.
        valid: binary [U, I], items to rank.
    """
    return metrics.mean({"ndcg": ndcg_by_user(model, train, valid)})["ndcg"]


def ndcg_by_user(model: ItemRanker, train: CSR, valid: CSR, progress: Progress = silent) -> Values:
    """Return NDCG@20 of each user, float64 [U]; NaN without validation or training items.

    Args:
        model: the model.
        train: binary [U, I], items that are not ranked.
        valid: binary [U, I], items to rank.
        progress: called while users are ranked.
    """
    ranks = model.ranks(train, valid, limit=CUTOFF, progress=progress)
    values = metrics.per_user(ranks, valid.indptr, (CUTOFF,))[f"ndcg@{CUTOFF}"]
    return np.where(np.diff(train.indptr) > 0, values, np.nan)


def only_users(matrix: CSR, users: NDArray[np.int64]) -> CSR:
    """Return a matrix of the same shape with only the rows of these users, ascending."""
    lengths = np.zeros(matrix.n_rows, np.int64)
    lengths[users] = np.diff(matrix.indptr)[users]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    data = matrix.take_rows(users)
    return CSR(indptr, data.indices, data.data, matrix.n_columns)


def spread_users(users: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many users, spread evenly."""
    return users if len(users) <= most else users[np.linspace(0, len(users) - 1, most).astype(np.int64)]


def is_behind(differences: Values) -> bool:
    """Tell whether the mean difference is below 0 by more than two standard errors; NaN are no users."""
    known = differences[~np.isnan(differences)]
    return len(known) > 1 and bool(known.mean() < -_ERRORS * standard_error(known))
