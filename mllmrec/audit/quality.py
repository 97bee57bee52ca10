"""The whole picture of a run's profiles: their words, how much they repeat each other, and what their vectors find."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mllmrec_kernels import topk_cosine
from numpy.typing import NDArray

from mllmrec.audit.profiles import MOST_USERS, ProfileWords, measure_words
from mllmrec.audit.wording import distinct, self_bleu
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.features.encode import Features
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.reason.vocabulary import words

COMPARED = 200  # profiles that distinct-n and self-BLEU are taken of, so that runs can be compared
_STRANGERS = 100  # never-seen items a user that held-out items are set against
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
    """What is measured of a run's profiles.

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
        """Everything but the vectors' cosines one by one, JSON-like; findings worst first."""
        told = self.words
        return {
            "users": told.users,
            "measured": told.measured,
            "failed": told.failed,
            "empty": told.empty,
            "shortened": self.shortened,
            "generic": len(told.generic),
            "twins": told.twins,
            "genericness": told.mean("genericness"),
            "grounding": told.mean("grounding"),
            "grounding_by_chance": told.mean("chance"),
            "compared": self.compared,
            "distinct_1": self.distinct_1,
            "distinct_2": self.distinct_2,
            "self_bleu": self.self_bleu if math.isfinite(self.self_bleu) else None,
            "nearest_cosine": float(np.mean(self.nearest)) if len(self.nearest) else None,
            "similarity": asdict(self.similarity) if self.similarity else None,
            "descriptions": self.descriptions,
            "common": dict(told.common),
            "findings": [asdict(finding) for finding in told.findings],
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """(measure, value, how to read it) for a person."""
        told, n = self.words, self.compared
        rows = [
            (
                "profiles measured",
                f"{told.measured:,} of {told.users:,}",
                f"{told.failed:,} failed, {told.empty:,} empty",
            ),
            ("generic profiles", f"{len(told.generic):,}", "hardly a word tells the user from others"),
            ("same text, other items", f"{told.twins:,}", "should be 0"),
            ("genericness", f"{told.mean('genericness'):.0%}", "words that a tenth of all profiles have too"),
            (
                "grounding",
                f"{told.mean('grounding'):.0%}",
                f"words found in the user's items; by chance {told.mean('chance'):.0%}",
            ),
            (
                "distinct-1 / distinct-2",
                f"{self.distinct_1:.2f} / {self.distinct_2:.2f}",
                f"of {n:,} profiles; higher is more varied",
            ),
            ("self-BLEU", f"{self.self_bleu:.2f}", f"of {n:,} profiles; lower is more varied"),
            (
                "nearest profile, cosine",
                f"{np.mean(self.nearest):.2f}" if len(self.nearest) else "none",
                "1: told twice",
            ),
        ]
        if self.similarity:
            known = self.similarity
            rows.append(
                (
                    "held-out items, cosine",
                    f"{known.heldout:.3f}",
                    f"random never-seen items {known.random:.3f}; AUC {known.auc:.2f}",
                )
            )
        rows.append(("profiles cut by the encoder", f"{self.shortened:,}", "words beyond its limit are not read"))
        return rows


def measure_quality(
    dataset: Dataset,
    descriptions: Descriptions,
    profiles: Profiles,
    features: Features,
    *,
    newest: int,
    most: int = MOST_USERS,
    seed: int = 0,
) -> ProfileQuality:
    """Measure everything; held-out interactions are read for `similarity` alone.

    Args:
        dataset: catalogue and split.
        descriptions, profiles, features: artefacts of one run.
        newest: how many of a user's newest items a profile was made from (`profile.max_items`).
        most: users that are measured; a seeded sample where there are more.
        seed: of every sample.

    Raises:
        InputError: the run has no profile texts.
    """
    told = measure_words(dataset, descriptions, profiles, newest=newest, most=most, seed=seed)
    if told.measured == 0:
        raise InputError(
            'the run has no profile texts (profile.kind = "mean", or all failed): there is nothing to inspect'
        )
    generator = np.random.default_rng(seed)
    measured = np.sort(np.array([finding.user for finding in told.findings]))
    sample = generator.permutation(measured)[:COMPARED]
    written = profiles.texts
    texts = [words(written[user]) for user in sample]
    _, cosines = topk_cosine(features.users[measured], 1)
    return ProfileQuality(
        words=told,
        compared=len(texts),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        self_bleu=self_bleu(texts),
        nearest=np.ascontiguousarray(cosines[:, 0])[np.isfinite(cosines[:, 0])],
        similarity=_similarity(dataset, features, generator, most),
        shortened=features.cuts.profiles_cut,
        descriptions=dict(Counter(descriptions.table["status"].to_list())),
    )


def _similarity(dataset: Dataset, features: Features, generator: np.random.Generator, most: int) -> Similarity | None:
    heldout = dataset.matrix("valid").to_scipy() + dataset.matrix("test").to_scipy()
    seen = dataset.histories("all").user_items()
    lengths = np.diff(seen.indptr)
    users = np.flatnonzero((np.diff(heldout.indptr) > 0) & (lengths < dataset.n_items) & features.users.any(axis=1))
    if len(users) > most:
        users = generator.choice(users, most, replace=False)
    rows = []
    for start in range(0, len(users), _BLOCK):
        block = users[start : start + _BLOCK]
        scores = features.users[block] @ features.items.T  # [B, I]
        for user, score in zip(block, scores, strict=True):
            own = score[heldout.indices[heldout.indptr[user] : heldout.indptr[user + 1]]]
            strangers = np.delete(score, seen.row(int(user)))
            drawn = strangers[generator.integers(len(strangers), size=_STRANGERS)]
            above = (own[:, None] > drawn).mean() + (own[:, None] == drawn).mean() / 2
            rows.append((own.mean(), drawn.mean(), above))
    if not rows:
        return None
    held, random, auc = np.mean(rows, axis=0)
    return Similarity(len(rows), float(held), float(random), float(auc))
