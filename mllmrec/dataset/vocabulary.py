"""Count the words of a catalogue: document frequencies over item texts; interactions are never read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W\d_][\w'-]+\w", re.UNICODE)
_COMMON = 0.1  # a word in more than this share of the items tells users apart no more, in any language
_RARE = 2  # a word in fewer items cannot be shared by two of a user's items


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms of a catalogue and the items they stand in.

    Attributes:
        terms: [V] in alphabetical order.
        presence: [I, V] binary CSR (float32): item i has term v.
        idf: [V] ln(I / items with the term), float64.
    """

    terms: tuple[str, ...]
    presence: sp.csr_array
    idf: NDArray[np.float64]

    @staticmethod
    def of(documents: Sequence[Iterable[str]]) -> Vocabulary:
        """Build the vocabulary of items whose documents are given as terms."""
        sets = [set(document) for document in documents]
        frequency = Counter(term for terms in sets for term in terms)
        most = max(_COMMON * len(sets), _RARE)
        kept = sorted(term for term, count in frequency.items() if _RARE <= count <= most)
        index = {term: v for v, term in enumerate(kept)}
        columns = [sorted(index[term] for term in terms if term in index) for terms in sets]
        indptr = np.cumsum([0, *map(len, columns)])
        indices = np.array([v for row in columns for v in row], dtype=np.int32)
        presence = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(sets), len(kept)))
        counts = np.array([frequency[term] for term in kept], dtype=np.float64)
        return Vocabulary(tuple(kept), presence, np.log(len(sets) / np.maximum(counts, 1)))

    def distinctive(self, items: Sequence[int], most: int) -> list[str]:
        """Return the terms that set a history apart, by TF-IDF against chance.

        TF is how many of the history's items have the term, n, and the IDF is ln(n / m), m being how many would
        have it in a history of this length drawn at random: words that are merely common fall to nothing, in
        any language. Terms of a single item count only in histories too short to repeat themselves. Ties go to
        the alphabetically first.
        """
        counts = self.presence[np.asarray(items, dtype=np.int64)].sum(axis=0)
        least = 2 if len(items) > 3 else 1
        present = np.flatnonzero(counts >= least)
        chance = np.minimum(len(items) * np.exp(-self.idf[present]), len(items))
        weight = counts[present] * np.log(counts[present] / chance)
        order = np.argsort(-weight, kind="stable")[:most]
        return [self.terms[present[n]] for n in order if weight[n] > 0]


def words(text: str) -> list[str]:
    """Return the lower-case words of three letters or more; plural and possessive endings stay."""
    return [word.lower() for word in _WORD.findall(text)]


def standouts(
    chosen: Counter[str], n_chosen: int, catalogue: Counter[str], n_catalogue: int, *, most: int, least: int
) -> list[tuple[str, int]]:
    """Return the labels that are commoner in a history than in the catalogue, with their counts.

    They are ordered by the log-likelihood of the count against the catalogue's share; ties are alphabetical.

    Args:
        chosen: labels of the history's items.
        n_chosen: items of the history.
        catalogue: labels of all items.
        n_catalogue: items of the catalogue.
        most: labels returned, at most.
        least: count of a label, at least.
    """
    scored = []
    for label, count in chosen.items():
        expected = n_chosen * catalogue[label] / n_catalogue
        if count >= least and count > expected:
            scored.append((count * float(np.log(count / expected)), label, count))
    scored.sort(key=lambda row: (-row[0], row[1]))
    return [(label, count) for _, label, count in scored[:most]]
