"""Measure a run's profiles: their words, their diversity (distinct-n, self-BLEU), and their vectors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mllmrec_kernels import topk_cosine
from numpy.typing import NDArray

from mllmrec.audit.profiles import MOST_USERS, ProfileWords, measure_words
from mllmrec.dataset import Dataset
from mllmrec.dataset.summary import words
from mllmrec.errors import InputError
from mllmrec.features.encode import Features
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles

COMPARED = 200  # profiles that distinct-n and self-BLEU are taken of, so that runs can be compared
_ORDERS = (1, 2, 3, 4)  # of n-grams in BLEU
_STRANGERS = 100  # never-seen items per user that held-out items are set against
_BLOCK = 256  # users that are scored at once


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosines of user vectors with held-out items and with items the user never touched.

    Attributes:
        users: users measured.
        heldout, random: mean cosines.
        auc: how often a held-out item lies above a random never-seen one; 0.5 is chance.
    """

    users: int
    heldout: float
    random: float
    auc: float


@dataclass(frozen=True, slots=True)
class ProfileQuality:
    """Measures of a run's profiles.

    Attributes:
        words: genericness, grounding and the findings by name.
        compared: profiles behind distinct-n and self-BLEU, a seeded sample.
        distinct_1, distinct_2: different words, and pairs of words, over all.
        self_bleu: how far a profile can be pieced together from the others, 0 to 1.
        nearest: [measured] cosine of each profile's vector with the nearest other one's.
        similarity: held-out against random items, None without held-out items.
        shortened: profiles that the encoder could not read to their end.
        descriptions: items by status of their description.
    """

    words: ProfileWords
    compared: int
    distinct_1: float
    distinct_2: float
    self_bleu: float
    nearest: NDArray[np.float32]
    similarity: Similarity | None
    shortened: int
    descriptions: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the vectors' cosines one by one, JSON-like; findings worst first."""
        words = self.words
        return {
            "users": words.users,
            "measured": words.measured,
            "failed": words.failed,
            "empty": words.empty,
            "shortened": self.shortened,
            "generic": len(words.generic),
            "twins": words.twins,
            "genericness": words.mean("genericness"),
            "grounding": words.mean("grounding"),
            "grounding_by_chance": words.mean("chance"),
            "compared": self.compared,
            "distinct_1": self.distinct_1,
            "distinct_2": self.distinct_2,
            "self_bleu": self.self_bleu if math.isfinite(self.self_bleu) else None,
            "nearest_cosine": float(np.mean(self.nearest)) if len(self.nearest) else None,
            "similarity": asdict(self.similarity) if self.similarity else None,
            "descriptions": self.descriptions,
            "common": dict(words.common),
            "findings": [asdict(finding) for finding in words.findings],
        }


def measure_quality(
    dataset: Dataset,
    descriptions: Descriptions,
    profiles: Profiles,
    features: Features,
    *,
    newest: int,
    most: int = MOST_USERS,
    seed: int = 0,
    progress: Progress = silent,
) -> ProfileQuality:
    """Measure everything; held-out interactions are read only for `similarity`.

    Args:
        dataset: catalogue and split.
        descriptions, profiles, features: artefacts of one run.
        newest: how many of a user's newest items a profile was made from (`profile.max_items`).
        most: users that are measured; a seeded sample if there are more.
        seed: of every sample.
        progress: called after each block of users.

    Raises:
        InputError: the run has no profile texts.
    """
    words_measured = measure_words(dataset, descriptions, profiles, newest=newest, most=most, seed=seed)
    if words_measured.measured == 0:
        raise InputError(
            'the run has no profile texts (profile.kind = "mean", or all failed): there is nothing to inspect'
        )
    generator = np.random.default_rng(seed)
    measured = np.sort(np.array([finding.user for finding in words_measured.findings]))
    sample = generator.permutation(measured)[:COMPARED]
    written = profiles.texts
    texts = [words(written[user]) for user in sample]
    _, cosines = topk_cosine(features.users[measured], 1)
    return ProfileQuality(
        words=words_measured,
        compared=len(texts),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        self_bleu=self_bleu(texts),
        nearest=np.ascontiguousarray(cosines[:, 0])[np.isfinite(cosines[:, 0])],
        similarity=_similarity(dataset, features, generator, most, progress),
        shortened=features.cuts.profiles_cut,
        descriptions=dict(Counter(descriptions.table["status"].to_list())),
    )


def _similarity(
    dataset: Dataset, features: Features, generator: np.random.Generator, most: int, progress: Progress
) -> Similarity | None:
    heldout = dataset.matrix("valid").to_scipy() + dataset.matrix("test").to_scipy()
    seen = dataset.histories("all").user_items()
    lengths = np.diff(seen.indptr)
    users = np.flatnonzero((np.diff(heldout.indptr) > 0) & (lengths < dataset.n_items) & features.users.any(axis=1))
    if len(users) > most:
        users = generator.choice(users, most, replace=False)
    rows = []
    for start in range(0, len(users), _BLOCK):
        progress("measure profiles", start, len(users))
        block = users[start : start + _BLOCK]
        scores = features.users[block] @ features.items.T  # [B, I]
        for user, score in zip(block, scores, strict=True):
            own = score[heldout.indices[heldout.indptr[user] : heldout.indptr[user + 1]]]
            strangers = np.delete(score, seen.row(int(user)))
            drawn = strangers[generator.integers(len(strangers), size=_STRANGERS)]
            above = (own[:, None] > drawn).mean() + (own[:, None] == drawn).mean() / 2
            rows.append((own.mean(), drawn.mean(), above))
    progress("measure profiles", len(users), len(users))
    if not rows:
        return None
    held, random, auc = np.mean(rows, axis=0)
    return Similarity(len(rows), float(held), float(random), float(auc))


def ngrams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Count each n-gram of a text.

    >>> ngrams(["a", "b", "a", "b"], 2)
    Counter({('a', 'b'): 2, ('b', 'a'): 1})
    """
    return Counter(zip(*(text[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return distinct-n (Li et al. 2016): different n-grams over all n-grams of all texts; 0 if there is none.

    It falls with the number of texts: compare only between sets of one size.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(text, n))
    return len(counts) / counts.total() if counts else 0.0


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Return self-BLEU-4 (Zhu et al. 2018): the mean BLEU of each text with all the others as its references.

    1 if all are the same, near 0 if none share words; NaN for fewer than two texts. An n-gram order with no
    match counts half a match (NIST smoothing), which keeps short texts above 0. O(total n-grams).
    """
    counted = [[ngrams(text, n) for n in _ORDERS] for text in texts]
    best = [_two_highest([text[order] for text in counted]) for order in range(len(_ORDERS))]
    lengths = Counter(len(text) for text in texts)
    if len(texts) < 2:
        return math.nan
    return sum(_bleu(counts, len(text), best, lengths) for counts, text in zip(counted, texts, strict=True)) / len(
        texts
    )


Highest = dict[tuple[str, ...], tuple[int, int]]


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> Highest:
    """Return each n-gram's highest count in any text and the second highest, which is left without that text."""
    best: Highest = {}
    for text in counts:
        for gram, count in text.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (count, first) if count > first else (first, max(second, count))
    return best


def _bleu(
    counts: Sequence[Counter[tuple[str, ...]]], length: int, best: Sequence[Highest], lengths: Counter[int]
) -> float:
    logs = []
    for text, highest in zip(counts, best, strict=True):
        total = text.total()
        if total == 0:
            continue
        # Where this text itself has the highest count, the references have the second highest.
        clipped = sum(
            min(count, second if count == first else first)
            for count, (first, second) in ((count, highest[gram]) for gram, count in text.items())
        )
        logs.append(math.log((clipped or 0.5) / total))
    if not logs:
        return 0.0
    others = lengths - Counter({length: 1})
    closest = min(others, key=lambda other: (abs(other - length), other))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(brevity + sum(logs) / len(logs))
