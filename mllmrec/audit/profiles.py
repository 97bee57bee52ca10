"""Are the profiles any good: measured, and the worst of them by name.

What a word says of a user is the business of `lift`. A profile is generic when hardly any of its words is telling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec.audit.lift import Judged, ProfileTerms
from mllmrec.dataset import Dataset, Histories
from mllmrec.reason.dependence import DOUBTFUL
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Item
from mllmrec.reason.profile import Profiles

MOST_ITEMS = 20_000  # items that tell what is common in the catalogue; a seeded sample where there are more
MOST_USERS = 10_000  # profiles that are measured; a seeded sample where there are more
_FEWEST_TELLING, _LEAST_TELLING = 2, 0.08  # fewer words, or a smaller share of them, and a profile is generic
WARN = 0.1  # share of generic, failed or repeated profiles from which on a run says so


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
        descriptions: what the describer said of the items.
        profiles: what is judged.
        newest: how many of a user's newest items a profile was made from (`profile.max_items`).
        most: profiles that are measured; a seeded sample where there are more.
        seed: of that sample.
    """
    texts, status = profiles.texts, Counter(profiles.table["status"].to_list())
    written = np.array([user for user, text in enumerate(texts) if text], dtype=np.int64)
    if len(written) > most:
        written = np.sort(np.random.default_rng(seed).choice(written, most, replace=False))
    told = ProfileTerms.of([texts[user] for user in written])
    user_items = _read_items(dataset.histories("train"), written, newest)
    said = [
        item_text(item, text) for item, text in zip(catalogue(dataset, images=False), descriptions.texts, strict=True)
    ]
    findings = _judge(told, user_items, said, seed)
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


def _judge(told: ProfileTerms, user_items: sp.csr_array, said: Sequence[str], seed: int) -> list[Judged]:
    """The findings by words; of a large catalogue the users' items are read, and a sample to tell what is common."""
    sample = np.arange(len(said))
    if len(said) > MOST_ITEMS:
        sample = np.sort(np.random.default_rng(seed).choice(len(said), MOST_ITEMS, replace=False))
    read = np.union1d(sample, user_items.indices)
    terms = told.presence_in([said[item] for item in read])
    share = np.asarray(terms[np.searchsorted(read, sample)].mean(axis=0), dtype=np.float64).ravel()
    return told.judge(user_items[:, read], terms, share, len(said))


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


def reasoning_warning(measured: ProfileWords, descriptions: Descriptions, profiles: Profiles) -> str | None:
    """One line where descriptions or profiles are not worth their time, else None.

    Said, beside what `profile_warning` says, of answers that seem not to depend on what they were asked of.
    """
    found = [profile_warning(measured)]
    for what, table in (("descriptions", descriptions.table), ("profiles", profiles.table)):
        share = table["status"].to_list().count(DOUBTFUL) / max(len(table), 1)
        found.append(f"{share:.0%} of the {what} are doubtful: refusals or set phrases" if share >= WARN else None)
    return "; ".join(said for said in found if said) or None


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
