"""Measure the words of profiles, and name the generic ones.

A profile is generic when hardly any of its words is telling (see `lift`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec.audit.lift import ProfileTerms, WordMeasures
from mllmrec.dataset import Dataset, Histories
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Item
from mllmrec.reason.profile import Profiles

MOST_ITEMS = 20_000  # items that common words are counted over; a seeded sample if there are more
MOST_USERS = 10_000  # profiles that are measured; a seeded sample if there are more
_FEWEST_TELLING, _LEAST_TELLING = 2, 0.08  # fewer words, or a smaller share of them, and a profile is generic
WARN = 0.1  # a run warns of so large a share of generic, failed or repeated profiles


@dataclass(frozen=True, slots=True)
class ProfileFinding:
    """Measures of one profile.

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
    """Measures of a run's profiles by their words.

    Attributes:
        users: users of the dataset.
        measured: profiles that were measured.
        failed, empty: profiles that an engine could not write, or wrote without anything to use; users without history.
        faults: of profiles that are kept all the same, commonest first, with their counts.
        common: the words of the average profile, commonest first, with the share of profiles they stand in.
        findings: one a measured profile, worst first.
    """

    users: int
    measured: int
    failed: int
    empty: int
    faults: tuple[tuple[str, int], ...]
    common: tuple[tuple[str, float], ...]
    findings: tuple[ProfileFinding, ...]

    @property
    def generic(self) -> tuple[ProfileFinding, ...]:
        """Return the generic ones, worst first."""
        return tuple(finding for finding in self.findings if finding.generic)

    @property
    def twins(self) -> int:
        """Return the number of profiles whose text another user with other items has too."""
        return sum(finding.twin for finding in self.findings)

    def mean(self, measure: str) -> float:
        """Return the mean of "genericness", "grounding", "chance" or "words" over the findings; 0 without any."""
        values = [float(getattr(finding, measure)) for finding in self.findings]
        return float(np.mean(values)) if values else 0.0


def measure_words(
    dataset: Dataset,
    descriptions: Descriptions,
    profiles: Profiles,
    *,
    newest: int,
    most: int = MOST_USERS,
    seed: int = 0,
) -> ProfileWords:
    """Measure the profiles' words against each other and against the training items they were made from.

    Profiles of a leaky run are measured against training items too: only those may explain them.

    Args:
        dataset: its catalogue and training histories.
        descriptions: of the items.
        profiles: to measure.
        newest: how many of a user's newest items a profile was made from (`profile.max_items`).
        most: profiles that are measured; a seeded sample if there are more.
        seed: of that sample.
    """
    texts, status = profiles.texts, Counter(profiles.table["status"].to_list())
    written = np.array([user for user, text in enumerate(texts) if text], dtype=np.int64)
    if len(written) > most:
        written = np.sort(np.random.default_rng(seed).choice(written, most, replace=False))
    terms = ProfileTerms.of([texts[user] for user in written])
    user_items = _read_items(dataset.histories("train"), written, newest)
    documents = [
        item_text(item, text) for item, text in zip(catalogue(dataset, images=False), descriptions.texts, strict=True)
    ]
    findings = _measure(terms, user_items, documents, seed)
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
        users=len(texts),
        measured=len(written),
        failed=profiles.without_text,
        empty=status["empty"],
        faults=_faults(profiles),
        common=tuple(terms.common_words()),
        findings=tuple(named),
    )


def _faults(profiles: Profiles) -> tuple[tuple[str, int], ...]:
    """Count the reasons of flagged and suspect profiles, without what each names and the number of its attempt."""
    kept = profiles.table.filter(pl.col("status").is_in(("flagged", "suspect")))
    return tuple(Counter(re.split(r":| \(", reason)[0] for reason in kept["reason"].to_list()).most_common())


def _measure(
    profile_terms: ProfileTerms, user_items: sp.csr_array, documents: Sequence[str], seed: int
) -> list[WordMeasures]:
    """Measure profiles by words; of a large catalogue the users' items and a sample of the others are read."""
    sample = np.arange(len(documents))
    if len(documents) > MOST_ITEMS:
        sample = np.sort(np.random.default_rng(seed).choice(len(documents), MOST_ITEMS, replace=False))
    read = np.union1d(sample, user_items.indices)
    terms = profile_terms.presence_in([documents[item] for item in read])
    share = np.asarray(terms[np.searchsorted(read, sample)].mean(axis=0), dtype=np.float64).ravel()
    return profile_terms.measure(user_items[:, read], terms, share, len(documents))


def item_text(item: Item, description: str) -> str:
    """Return all text of an item: of the catalogue, and the description of its pictures."""
    return " ".join([item.title, item.brand, *item.categories, item.description, description])


def profile_warning(measured: ProfileWords) -> str | None:
    """Return one line if the profiles of a run are not worth their time, else None.

    It names generic, repeated and failed profiles if a tenth of the users or more have them.
    """
    if measured.measured == 0 and measured.failed == 0:
        return None
    total = max(measured.measured, 1)
    generic, twins = len(measured.generic) / total, measured.twins / total
    failed = measured.failed / max(measured.users - measured.empty, 1)
    faults = []
    if generic >= WARN:
        worst = ", ".join(finding.id for finding in measured.generic[:3])
        faults.append(f"{generic:.0%} of the profiles are generic (worst: {worst})")
    if twins >= WARN:
        faults.append(f"{twins:.0%} have the same text as another user's with other items")
    if failed >= WARN:
        faults.append(f"{failed:.0%} of the profiles failed")
    return "; ".join(faults) or None


def reasoning_warning(measured: ProfileWords, descriptions: Descriptions, profiles: Profiles) -> str | None:
    """Return one line if descriptions or profiles are not worth their time, else None.

    Beside `profile_warning`, it names answers that seem not to depend on their request.

    Args:
        measured: the measures of the profiles.
        descriptions: of the items.
        profiles: of the users.
    """
    faults = [profile_warning(measured)]
    for what, table in (("descriptions", descriptions.table), ("profiles", profiles.table)):
        share = table["status"].to_list().count("suspect") / max(len(table), 1)
        faults.append(f"{share:.0%} of the {what} are suspect: refusals or set phrases" if share >= WARN else None)
    return "; ".join(fault for fault in faults if fault) or None


def _read_items(histories: Histories, users: NDArray[np.int64], newest: int) -> sp.csr_array:
    """Return [P, I] binary: the newest items of each user."""
    items = [np.sort(histories.of(int(user))[-newest:]) for user in users]
    indptr = np.cumsum([0, *map(len, items)])
    indices = np.concatenate([*items, np.zeros(0, np.int32)])
    return sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(items), histories.n_items))


def _twins(texts: Sequence[str], user_items: sp.csr_array) -> list[bool]:
    """Return for each text whether it is also that of a user whose items are others."""
    histories: dict[str, set[bytes]] = {}
    items = [user_items.indices[user_items.indptr[n] : user_items.indptr[n + 1]].tobytes() for n in range(len(texts))]
    for text, own in zip(texts, items, strict=True):
        histories.setdefault(text, set()).add(own)
    return [len(histories[text]) > 1 for text in texts]
