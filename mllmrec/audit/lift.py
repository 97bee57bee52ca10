"""Find the words of a profile that say something of its user.

Words are compared as sets, in any language that parts them by spaces. A word is *lifted* for a user when it stands
at least twice as often among their training items as in the catalogue. Of a profile's words

    common    stand in at least a tenth of all profiles: the catalogue's average profile has them too
    telling   are lifted for the user, and follow the items in general: among the users whose profiles have the
              word, it is lifted at least twice as often as among all users, and not by luck

"Quality" is lifted for some users by chance, but as often for those whose profiles lack it: it is never telling.
Nor is any word that a prompt's template puts into every profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import betainc, gammaln

from mllmrec.dataset.summary import words

COMMON = 0.1  # a word in so large a share of the profiles belongs to the average profile
_COMMON_LEAST = 5  # profiles that a word must stand in to be common, in small runs
_BOILERPLATE = 0.5  # a word in so large a share of the profiles is the template's, no content
_LIFT = 2.0
_LUCK = 0.1  # probability
_LISTED = 30  # of the common words
_BLOCK = 512  # users whose items' words are counted at once

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WordMeasures:
    """Measures of one profile's words: their number, the shares (see the module), and the telling words."""

    words: int
    genericness: float
    grounding: float
    chance: float
    telling: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProfileTerms:
    """The words of some profiles.

    Attributes:
        terms: [V] alphabetical.
        presence: [P, V] binary: profile p has term v.
        common, boilerplate: [V] whether a term is the average profile's, or the template's.
    """

    terms: tuple[str, ...]
    presence: sp.csr_array
    common: NDArray[np.bool_]
    boilerplate: NDArray[np.bool_]

    @staticmethod
    def of(texts: Sequence[str]) -> ProfileTerms:
        """Return the words of these profiles."""
        sets = [set(words(text)) for text in texts]
        terms = tuple(sorted(set(chain.from_iterable(sets))))
        presence = _presence(sets, terms)
        counts = np.asarray(presence.sum(axis=0)).ravel()
        return ProfileTerms(
            terms,
            presence,
            counts >= max(COMMON * len(texts), _COMMON_LEAST),
            counts >= max(_BOILERPLATE * len(texts), _COMMON_LEAST),
        )

    def presence_in(self, documents: Sequence[str]) -> sp.csr_array:
        """Return [I, V] binary: document i has term v."""
        known = set(self.terms)
        return _presence([known.intersection(words(document)) for document in documents], self.terms)

    def common_words(self) -> list[tuple[str, float]]:
        """Return the commonest words, each with the share of profiles that have it."""
        shares = np.asarray(self.presence.sum(axis=0), dtype=np.float64).ravel() / max(self.presence.shape[0], 1)
        order = np.argsort(-shares, kind="stable")[:_LISTED]
        return [(self.terms[v], float(shares[v])) for v in order if self.common[v]]

    def measure(
        self, user_items: sp.csr_array, item_terms: sp.csr_array, share: Floats, n_items: int
    ) -> list[WordMeasures]:
        """Measure each profile's words.

        Args:
            user_items: binary [P, J], training items of the profiles' users.
            item_terms: binary [J, V].
            share: float64 [V], share of the catalogue's items that have each term.
            n_items: items of the whole catalogue.
        """
        counts, follows = self._count(user_items, item_terms, share)
        lengths = np.diff(user_items.indptr)
        return [self._one(counts, p, int(n), share, follows, n_items) for p, n in enumerate(lengths)]

    def _count(
        self, user_items: sp.csr_array, item_terms: sp.csr_array, share: Floats
    ) -> tuple[sp.csr_array, NDArray[np.bool_]]:
        """Return [P, V], the user's items with each of the profile's terms, and [V], whether a term follows items."""
        lengths = np.diff(user_items.indptr)
        everywhere, written, counts = np.zeros(len(share)), np.zeros(len(share)), []
        for start in range(0, max(len(lengths), 1), _BLOCK):
            block = slice(start, start + _BLOCK)
            count: sp.csr_array = (user_items[block] @ item_terms).tocsr()
            lifted = count.copy()
            expected = np.repeat(lengths[block], np.diff(count.indptr)) * share[count.indices]
            lifted.data = (count.data >= _LIFT * expected).astype(np.float32)
            everywhere += np.asarray(lifted.sum(axis=0)).ravel()
            written += np.asarray(lifted.multiply(self.presence[block]).sum(axis=0)).ravel()
            counts.append(count.multiply(self.presence[block]).tocsr())
        owned = np.asarray(self.presence.sum(axis=0)).ravel()
        base = everywhere / max(len(lengths), 1)
        # P(as many lifted or more), were the word in profiles at random: a binomial tail.
        by_luck = betainc(np.maximum(written, 0.5), np.maximum(owned - written, 0) + 1, base)
        rows = sp.vstack(counts, format="csr")
        rows.sort_indices()
        return rows, (written >= _LIFT * base * owned) & (by_luck <= _LUCK)

    def _one(
        self, counts: sp.csr_array, p: int, length: int, share: Floats, follows: NDArray[np.bool_], n_items: int
    ) -> WordMeasures:
        own = _row(self.presence, p)[0]
        at, values = _row(counts, p)
        counted = np.zeros(len(own))
        counted[np.searchsorted(own, at)] = values
        content = ~self.boilerplate[own]
        expected = length * share[own]
        telling = (counted > 0) & (counted >= _LIFT * expected) & follows[own]
        order = np.argsort(-(counted / np.maximum(expected, 1e-9)), kind="stable")
        return WordMeasures(
            words=len(own),
            genericness=_mean(self.common[own]),
            grounding=_mean(counted[content] > 0),
            chance=_mean(_chance(share[own][content] * n_items, length, n_items)),
            telling=tuple(self.terms[own[n]] for n in order if telling[n]),
        )


def _row(matrix: sp.csr_array, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    at = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[at], matrix.data[at]


def _chance(frequency: Floats, drawn: int, n_items: int) -> Floats:
    """Return the probability that a word of that many items stands in at least one of `drawn` random items."""
    without = n_items - frequency
    possible = without >= drawn
    log_none = (
        gammaln(np.where(possible, without, drawn) + 1)
        - gammaln(np.where(possible, without - drawn, 0) + 1)
        - gammaln(n_items + 1)
        + gammaln(n_items - drawn + 1)
    )
    chance: Floats = np.where(possible, -np.expm1(np.minimum(log_none, 0.0)), 1.0)
    return chance


def _presence(sets: Sequence[set[str]], terms: Sequence[str]) -> sp.csr_array:
    index = {term: v for v, term in enumerate(terms)}
    columns = [sorted(index[term] for term in own) for own in sets]
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.fromiter(chain.from_iterable(columns), dtype=np.int32, count=int(indptr[-1]))
    return sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(sets), len(terms)))


def _mean(values: NDArray[np.bool_] | Floats) -> float:
    return float(np.mean(values)) if len(values) else 0.0
