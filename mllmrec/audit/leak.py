"""Measure from the vectors whether profiles know held-out items, without trust in what the run says.

A leak-free profile ranks held-out items above strangers too, because tastes persist; so a high rank of held-out
items proves nothing. But a profile that was written from an item knows *it*, above items just like it. So every
item is set against its likes, the never-seen items of the nearest vectors. The part that a training history explains
is taken out by a leak-free reference, made here only from training items: the mean of their vectors (for a training
item, of the *others*).

    surplus(u, i) = [s(p_u, i) - mean over likes j of s(p_u, j)]
                    - b [s(r_u, i) - mean over likes j of s(r_u, j)]

with s the cosine, p_u the user's vector in the run, r_u the reference, and b the least-squares slope of s(p_u, .)
on s(r_u, .) over never-seen items. The surplus of a training item is positive: the profile was written from it, the
reference without it. That of a held-out item is near zero in a leak-free run, and as high as a training
item's in a leaky one. So

    leak index = mean over users of the surplus of held-out items / that of training items

is about the share of held-out items that went into the profiles: 0 if none did, 1 if all did. Its interval
is a bootstrap over users. Validation and test are measured apart, so that a leak of only one shows whole. So are
held-out items without a training interaction, as a split by cold items has them: their leak would be a small part of
the whole. Profiles of tastes, without items, have next to no surplus: for them the audit is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mllmrec.dataset import Dataset
from mllmrec.dataset.dataset import SPLITS, Scope, Split
from mllmrec.errors import InputError
from mllmrec.evaluation.metrics import Floats, Interval, intervals, resampled_sums
from mllmrec.features.encode import Features, Vectors
from mllmrec.foundation.progress import Progress, silent

Verdict = Literal["leak-free", "leaking", "undecided"]

LIMIT = 0.5  # of the leak index: held-out items are known half as well as training items
_VAGUE = 0.1  # a training surplus below this share of the margin is too little to divide by
_DECILES = 10
_LIKES = 10  # never-seen items that an item is set against
_TRAINING_ITEMS = 10  # drawn of each user
_MOST_USERS, _MOST_STRANGERS = 2_000, 4_000
_FEWEST_USERS = 30  # with a cold item; an interval over fewer says nothing
_HELD_OUT: tuple[tuple[Split, bool], ...] = (("valid", False), ("test", False), ("valid", True), ("test", True))


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Knowledge of the items of one split in the user vectors; cosines, means over users.

    Attributes:
        split: "train", "valid" or "test".
        cold: whether these are only the items of the split without a training interaction.
        users: users with such items.
        margin: of the items over never-seen items of the same popularity decile.
        reference: the same margin by the leak-free reference.
        surplus: knowledge of the profiles beyond the reference (see the module).
        index: the leak index, None for "train".
    """

    split: Split
    cold: bool
    users: int
    margin: float
    reference: float
    surplus: float
    index: Interval | None

    @property
    def name(self) -> str:
        """Return the split, and that only its cold items are measured."""
        return f"{self.split}, cold items" if self.cold else self.split


@dataclass(frozen=True, slots=True)
class LeakAudit:
    """Knowledge of held-out items in the profiles.

    Attributes:
        recorded: the histories that the run says its profiles were made from.
        measured: the verdict from only the vectors.
        splits: train, valid, test, then the cold items of valid and test; held-out splits without items are left out,
            and cold items of fewer than 30 users.
        users: users measured.
    """

    recorded: Scope
    measured: Verdict
    splits: tuple[Knowledge, ...]
    users: int

    @property
    def leaking(self) -> bool:
        """Return whether the profiles saw held-out items, by the measure or by the run's own record."""
        return self.measured == "leaking" or self.recorded == "all"

    @property
    def sentence(self) -> str:
        """Return the verdict in one line."""
        indices = [f"{known.name} {known.index}" for known in self.splits if known.index]
        measure = f"leak index {', '.join(indices)} (0 none, 1 all of the held-out items; limit {LIMIT:.2f})"
        if self.measured == "leaking":
            return f"the profiles know held-out items as only a leak explains: {measure}"
        if self.recorded == "all":
            return f'the run was made with profile.history = "all"; measured {self.measured}: {measure}'
        if self.measured == "leak-free":
            return f"the profiles know held-out items no better than training items explain: {measure}"
        return f"undecided: profiles too vague to show their own training items, or too few users: {measure}"


def audit_leak(
    features: Features, dataset: Dataset, *, scope: Scope, seed: int = 0, progress: Progress = silent
) -> LeakAudit:
    """Measure whether profiles know held-out items.

    Args:
        features: the run's vectors of items and users.
        dataset: its split; held-out interactions are read here, to measure by.
        scope: the histories that the run says its profiles were made from.
        seed: of the samples: users, their training items, never-seen items.
        progress: told after each user.

    Raises:
        MismatchError: the vectors do not belong to the dataset.
        InputError: nobody has two training items, a held-out item and a vector.
    """
    features.check(dataset.histories(scope))
    generator = np.random.default_rng(seed)
    users = _audited(features, dataset, generator)
    if len(users) == 0:
        raise InputError(f"{dataset.folder}: no user has two training items, a held-out item and a vector to audit")
    measurer, rows = _Measurer(features, dataset, generator), []
    for n, user in enumerate(users, start=1):
        rows.append(measurer.user(int(user)))
        progress("audit users", n, len(users))
    values = np.array(rows)  # [B, train and _HELD_OUT, 3 measures]
    groups: list[tuple[Split, bool]] = [("train", False), *_HELD_OUT]
    measured = (~np.isnan(values[:, :, 2])).sum(axis=0)
    splits = tuple(
        _knowledge(values, n, split, cold=cold)
        for n, (split, cold) in enumerate(groups)
        if measured[n] >= (_FEWEST_USERS if cold else 1)
    )
    return LeakAudit(scope, _verdict(splits), splits, len(users))


def _audited(features: Features, dataset: Dataset, generator: np.random.Generator) -> NDArray[np.int64]:
    lengths = np.diff(dataset.train.indptr)
    heldout = np.diff(dataset.matrix("valid").indptr) + np.diff(dataset.matrix("test").indptr)
    users = np.flatnonzero((lengths > 1) & (heldout > 0) & features.users.any(axis=1))
    if len(users) > _MOST_USERS:
        users = np.sort(generator.choice(users, _MOST_USERS, replace=False))
    return users


class _Measurer:
    """The three measures (margin, that of the reference, surplus) of one user's items, split by split."""

    def __init__(self, features: Features, dataset: Dataset, generator: np.random.Generator) -> None:
        self._features, self._generator = features, generator
        self._items = [dataset.matrix(split) for split in SPLITS]
        self._seen = dataset.histories("all").user_items()
        counts = np.bincount(self._items[0].indices, minlength=dataset.n_items)
        edges = np.quantile(counts, np.arange(1, _DECILES) / _DECILES)
        self._cold = counts == 0
        self._decile = np.searchsorted(edges, counts, side="right")
        strangers = np.arange(dataset.n_items)
        if len(strangers) > _MOST_STRANGERS:
            strangers = np.sort(generator.choice(strangers, _MOST_STRANGERS, replace=False))
        self._strangers = strangers
        self._stranger_vectors = features.items[strangers]

    def user(self, user: int) -> Floats:
        """Return [5, 3]: train and _HELD_OUT by margin, reference margin, surplus; NaN if there is no item."""
        training = self._items[0].row(user)
        total: Vectors = self._features.items[training].sum(axis=0)
        unseen = ~np.isin(self._strangers, self._seen.row(user))
        drawn = training
        if len(training) > _TRAINING_ITEMS:
            drawn = self._generator.choice(training, _TRAINING_ITEMS, replace=False)
        groups = [_mean(self._rows(user, drawn, total - self._features.items[drawn], unseen))]
        held_out = {split: self._items[SPLITS.index(split)].row(user) for split in ("valid", "test")}
        rows = {
            split: self._rows(user, items, np.tile(total, (len(items), 1)), unseen) for split, items in held_out.items()
        }
        groups += [_mean(rows[split][self._cold[held_out[split]] | (not cold)]) for split, cold in _HELD_OUT]
        return np.array(groups)

    def _rows(self, user: int, items: NDArray[np.integer], references: Vectors, unseen: NDArray[np.bool_]) -> Floats:
        """Return [n, 3]: the measures of each of `items`, with its own reference [n, d]; NaN if it has none."""
        vectors = self._features.items
        profile = vectors[items] @ self._features.users[user], self._stranger_vectors @ self._features.users[user]
        lengths = np.maximum(np.linalg.norm(references, axis=1), np.finfo(np.float32).tiny)
        reference_own = (vectors[items] * references).sum(axis=1) / lengths
        reference = (references / lengths[:, None]) @ self._stranger_vectors.T  # [n, strangers]
        alike = vectors[items] @ self._stranger_vectors.T
        deciles = self._decile[self._strangers][unseen]
        rows = np.full((len(items), 3), np.nan)
        for n, item in enumerate(items):
            same = deciles == self._decile[item]
            if same.any() and references[n].any():
                likes = np.argsort(-alike[n][unseen], kind="stable")[:_LIKES]
                own, strangers = (profile[0][n], reference_own[n]), (profile[1][unseen], reference[n][unseen])
                margins = [score - scores[same].mean() for score, scores in zip(own, strangers, strict=True)]
                rows[n] = (*margins, _surplus(own, strangers, likes))
        return rows


def _mean(rows: Floats) -> Floats:
    """Return the mean of the rows [n, 3] that are numbers; NaN if none is."""
    measured = rows[~np.isnan(rows[:, 2])]
    return np.mean(measured, axis=0) if len(measured) else np.full(3, np.nan)


def _surplus(own: tuple[float, float], strangers: tuple[Vectors, Vectors], likes: NDArray[np.int64]) -> float:
    """Return the surplus of one item from its scores and those of never-seen items, by profile and by reference."""
    centered = strangers[1] - strangers[1].mean()
    spread = float(centered @ centered)
    slope = float(centered @ strangers[0]) / spread if spread > 0 else 0.0
    above, expected = (score - scores[likes].mean() for score, scores in zip(own, strangers, strict=True))
    return float(above - slope * expected)


def _knowledge(values: Floats, group: int, split: Split, *, cold: bool) -> Knowledge:
    margin, reference, surplus = (float(mean) for mean in np.nanmean(values[:, group], axis=0))
    index = None
    if group > 0:
        both = values[~np.isnan(values[:, [0, group], 2]).any(axis=1)][:, [0, group], 2]
        index = _ratio(both[:, 1], both[:, 0]) if len(both) else None
    users = int((~np.isnan(values[:, group, 2])).sum())
    return Knowledge(split, cold, users, margin, reference, surplus, index)


def _ratio(above: Floats, below: Floats) -> Interval:
    """Return the ratio of two means over the same users, with its bootstrap interval."""
    both = np.column_stack([above, below])
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = resampled_sums(both)
        value = above.sum() / below.sum()
        return intervals(np.array([value]), draws[:, :1] / draws[:, 1:])[0]


def _verdict(splits: Sequence[Knowledge]) -> Verdict:
    """Return "leaking" if one held-out interval lies above the limit, "leak-free" if all lie below it."""
    train, held_out = splits[0], [known.index for known in splits if known.index]
    if train.split != "train" or train.surplus <= _VAGUE * train.margin or not held_out:
        return "undecided"
    if any(index.low > LIMIT for index in held_out):
        return "leaking"
    return "leak-free" if all(index.high < LIMIT for index in held_out) else "undecided"
