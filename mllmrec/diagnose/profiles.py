"""Are the profiles any good: measured, and the worst of them by name.

Words are compared as sets, in any language that parts them by spaces. A word is *lifted* for a user when it stands
at least twice as often among their training items as in the catalogue. Of a profile's words

    common    stand in at least a tenth of all profiles: the catalogue's average profile has them too
    telling   are lifted for the user, and follow the items in general: among the users whose profiles have the
              word, it is lifted at least twice as often as among all users, and not by luck

"Quality" is lifted for some users by chance, but as often for those who are not told of it: it is never telling.
Nor is any word that a prompt's template puts into every profile. A profile is generic when hardly any of its
words is telling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import betainc, gammaln

from mllmrec.dataset import Dataset, Histories
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Item
from mllmrec.reason.profile import Profiles
from mllmrec.reason.vocabulary import words

MOST_USERS = 10_000  # profiles that are measured; a seeded sample where there are more
COMMON = 0.1  # share of the profiles from which on a word is the average profile's
_COMMON_LEAST = 5  # profiles that a word must stand in to be common, in small runs
_BOILERPLATE = 0.5  # share of the profiles from which on a word is the template's, no content
_LIFT = 2.0
_LUCK = 0.1  # probability
_FEWEST_TELLING, _LEAST_TELLING = 2, 0.08  # fewer words, or a smaller share of them, and a profile is generic
WARN = 0.1  # share of generic, failed or repeated profiles from which on a run says so
_BLOCK = 512  # users whose items' words are counted at once

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProfileFinding:
    """What is measured of one profile.

    Attributes:
        user: index of the user.
        id: the shop's id.
        words: different words of the profile.
        genericness: share of them that are common.
        grounding: share of the content words (all but the template's) that stand in the user's training items.
        chance: the share that is expected to stand in as many items drawn at random.
        telling: the telling words.
        generic: whether hardly any word is telling.
        twin: whether a user with other items has the very same text.
    """

    user: int
    id: str
    words: int
    genericness: float
    grounding: float
    chance: float
    telling: tuple[str, ...]
    generic: bool
    twin: bool


@dataclass(frozen=True, slots=True)
class ProfileWords:
    """The profiles of a run, as far as their words show it.

    Attributes:
        users: users of the dataset.
        measured: profiles that were measured.
        failed, empty: profiles that an engine could not write; users without history.
        common: the words of the average profile, commonest first, with the share of profiles they stand in.
        findings: one a measured profile, worst first.
    """

    users: int
    measured: int
    failed: int
    empty: int
    common: tuple[tuple[str, float], ...]
    findings: tuple[ProfileFinding, ...]

    @property
    def generic(self) -> tuple[ProfileFinding, ...]:
        """The generic ones, worst first."""
        return tuple(finding for finding in self.findings if finding.generic)

    @property
    def twins(self) -> int:
        """Profiles whose text another user with other items has too."""
        return sum(finding.twin for finding in self.findings)

    def mean(self, measure: str) -> float:
        """Mean of "genericness", "grounding", "chance" or "words" over the findings; 0 where there is none."""
        values = [float(getattr(finding, measure)) for finding in self.findings]
        return float(np.mean(values)) if values else 0.0


def measure_words(
    dataset: Dataset, descriptions: Descriptions, profiles: Profiles, *, newest: int, seed: int = 0
) -> ProfileWords:
    """Measure the profiles' words against each other and against the training items they were made from.

    Profiles of a leaky run are measured against training items too: only those may explain them.

    Args:
        dataset: its catalogue and training histories.
        descriptions: what the describer said of the items.
        profiles: what is judged.
        newest: how many of a user's newest items a profile was made from (`profile.max_items`).
        seed: of the sample, where there are more than MOST_USERS profiles.
    """
    texts, status = profiles.texts, Counter(profiles.table["status"].to_list())
    written = np.array([user for user, text in enumerate(texts) if text], dtype=np.int64)
    if len(written) > MOST_USERS:
        written = np.sort(np.random.default_rng(seed).choice(written, MOST_USERS, replace=False))
    told = _Words.of([texts[user] for user in written])
    user_items = _read_items(dataset.histories("train"), written, newest)
    said = [item_text(item, text) for item, text in zip(catalogue(dataset), descriptions.texts, strict=True)]
    findings = told.judge(user_items, told.presence_in(said))
    twin = _twins([texts[user] for user in written], user_items)
    named = [
        ProfileFinding(
            user=int(user),
            id=str(dataset.users[int(user)]),
            generic=len(found.telling) < max(_FEWEST_TELLING, _LEAST_TELLING * found.words),
            twin=same,
            **asdict(found),
        )
        for user, found, same in zip(written, findings, twin, strict=True)
    ]
    named.sort(key=lambda f: (not f.generic, len(f.telling) / max(f.words, 1), -f.genericness, f.user))
    return ProfileWords(
        len(texts), len(written), status["failed"], status["empty"], tuple(told.common_words()), tuple(named)
    )


def item_text(item: Item, description: str) -> str:
    """All that is known of an item in words: its catalogue text and what its pictures show."""
    return " ".join([item.title, item.brand, *item.categories, item.description, description])


def profile_warning(measured: ProfileWords) -> str | None:
    """One line where the profiles of a run are not worth their time, else None.

    Said of generic, repeated and failed profiles, each from a tenth of the users on.
    """
    if measured.measured == 0 and measured.failed == 0:
        return None
    asked = max(measured.measured, 1)
    generic, twins = len(measured.generic) / asked, measured.twins / asked
    failed = measured.failed / max(measured.users - measured.empty, 1)
    found = []
    if generic >= WARN:
        worst = ", ".join(finding.id for finding in measured.generic[:3])
        found.append(f"{generic:.0%} of the profiles are generic (worst: {worst})")
    if twins >= WARN:
        found.append(f"{twins:.0%} have the same text as another user's with other items")
    if failed >= WARN:
        found.append(f"{failed:.0%} of the profiles failed")
    return "; ".join(found) or None


def _read_items(histories: Histories, users: NDArray[np.int64], newest: int) -> sp.csr_array:
    """[P, I] binary: the newest items of each user."""
    items = [np.sort(histories.of(int(user))[-newest:]) for user in users]
    indptr = np.cumsum([0, *map(len, items)])
    indices = np.concatenate([*items, np.zeros(0, np.int32)])
    return sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(items), histories.n_items))


def _twins(texts: Sequence[str], user_items: sp.csr_array) -> list[bool]:
    """Whether a text is also that of a user whose items are others."""
    histories: dict[str, set[bytes]] = {}
    items = [user_items.indices[user_items.indptr[n] : user_items.indptr[n + 1]].tobytes() for n in range(len(texts))]
    for text, own in zip(texts, items, strict=True):
        histories.setdefault(text, set()).add(own)
    return [len(histories[text]) > 1 for text in texts]


@dataclass(frozen=True, slots=True)
class _Words:
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
    def of(texts: Sequence[str]) -> _Words:
        sets = [set(words(text)) for text in texts]
        terms = tuple(sorted(set(chain.from_iterable(sets))))
        presence = _presence(sets, terms)
        counts = np.asarray(presence.sum(axis=0)).ravel()
        return _Words(
            terms,
            presence,
            counts >= max(COMMON * len(texts), _COMMON_LEAST),
            counts >= max(_BOILERPLATE * len(texts), _COMMON_LEAST),
        )

    def presence_in(self, documents: Sequence[str]) -> sp.csr_array:
        """[I, V] binary: document i has term v."""
        known = set(self.terms)
        return _presence([known.intersection(words(document)) for document in documents], self.terms)

    def common_words(self, most: int = 30) -> list[tuple[str, float]]:
        """The commonest words with the share of profiles they stand in."""
        shares = np.asarray(self.presence.sum(axis=0), dtype=np.float64).ravel() / max(self.presence.shape[0], 1)
        order = np.argsort(-shares, kind="stable")[:most]
        return [(self.terms[v], float(shares[v])) for v in order if self.common[v]]

    def judge(self, user_items: sp.csr_array, item_terms: sp.csr_array) -> list[_Judged]:
        """What each profile's words say of its user.

        Args:
            user_items: [P, I] training items of the profiles' users.
            item_terms: [I, V].
        """
        share = np.asarray(item_terms.mean(axis=0), dtype=np.float64).ravel()
        lengths = np.diff(user_items.indptr)
        everywhere, told, counts = np.zeros(len(share)), np.zeros(len(share)), []
        for start in range(0, max(len(lengths), 1), _BLOCK):
            block = slice(start, start + _BLOCK)
            count: sp.csr_array = (user_items[block] @ item_terms).tocsr()
            lifted = count.copy()
            expected = np.repeat(lengths[block], np.diff(count.indptr)) * share[count.indices]
            lifted.data = (count.data >= _LIFT * expected).astype(np.float32)
            everywhere += np.asarray(lifted.sum(axis=0)).ravel()
            told += np.asarray(lifted.multiply(self.presence[block]).sum(axis=0)).ravel()
            counts.append(count.multiply(self.presence[block]).tocsr())  # of the profiles' own words alone
        owned = np.asarray(self.presence.sum(axis=0)).ravel()
        base = everywhere / max(len(lengths), 1)
        # P(as many lifted or more), were the word told to anybody: a binomial tail.
        by_luck = betainc(np.maximum(told, 0.5), np.maximum(owned - told, 0) + 1, base)
        follows = (told >= _LIFT * base * owned) & (by_luck <= _LUCK)
        rows = sp.vstack(counts, format="csr")
        rows.sort_indices()
        return [self._one(rows, p, int(lengths[p]), share, follows, item_terms.shape[0]) for p in range(len(lengths))]

    def _one(
        self, counts: sp.csr_array, p: int, length: int, share: Floats, follows: NDArray[np.bool_], n_items: int
    ) -> _Judged:
        own = _row(self.presence, p)[0]
        at, values = _row(counts, p)
        found = np.zeros(len(own))
        found[np.searchsorted(own, at)] = values
        content = ~self.boilerplate[own]
        expected = length * share[own]
        telling = (found > 0) & (found >= _LIFT * expected) & follows[own]
        order = np.argsort(-(found / np.maximum(expected, 1e-9)), kind="stable")
        return _Judged(
            words=len(own),
            genericness=_mean(self.common[own]),
            grounding=_mean(found[content] > 0),
            chance=_mean(_chance(share[own][content] * n_items, length, n_items)),
            telling=tuple(self.terms[own[n]] for n in order if telling[n]),
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    words: int
    genericness: float
    grounding: float
    chance: float
    telling: tuple[str, ...]


def _row(matrix: sp.csr_array, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    at = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[at], matrix.data[at]


def _chance(frequency: Floats, drawn: int, n_items: int) -> Floats:
    """Probability that a word of that many items stands in at least one of `drawn` items, drawn at random."""
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
