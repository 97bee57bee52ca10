"""Stage 2: each user's history -> a preference profile (method 2.3).

Sees `Histories` only. With scope "train" no held-out item can reach a profile; with scope "all" (the
paper's leak, for study) everything made from the result says LEAKY. The artefact carries the histories'
digest, and whoever uses profiles checks it against the split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from mllmrec import storage
from mllmrec.config import ProfileConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.dataset.dataset import Scope
from mllmrec.errors import MismatchError
from mllmrec.progress import Progress, silent
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer, HistoryItem, Profiler
from mllmrec.reason.engines.extractive_profile import ExtractiveProfiler
from mllmrec.reason.generate import generate


@dataclass(frozen=True, slots=True)
class Profiles:
    """What is said of each user.

    Attributes:
        table: [U] rows in user order: id, profile (empty where there is none), status ("ok", "empty" for a
            user without training items, "mean" where profiles are not asked for, "failed"), reason.
        digest: of the histories that they were made from.
        scope: "train", or "all" (LEAKY).
    """

    table: pl.DataFrame
    digest: str
    scope: Scope

    @property
    def texts(self) -> list[str]:
        """[U] P_u of each user."""
        return self.table["profile"].to_list()

    @property
    def summary(self) -> str:
        """One line for a person."""
        counts = dict(self.table["status"].value_counts().iter_rows())
        if "mean" in counts:
            return f"{counts['mean']:,} users stand as the mean of their items"
        return (
            f"{counts.get('ok', 0):,} profiles, {counts.get('empty', 0):,} users without history, "
            f"{counts.get('failed', 0):,} failed"
        )

    def check(self, histories: Histories) -> None:
        """Refuse profiles that were not made from these histories.

        Raises:
            MismatchError: they were made from another split, or from other interactions.
        """
        if (self.digest, self.scope) != (histories.digest, histories.scope):
            raise MismatchError(
                f"the profiles were made from other histories (scope {self.scope!r}, digest "
                f"{self.digest[:12]}) than the split in use (scope {histories.scope!r}, digest "
                f"{histories.digest[:12]}); make them again with mllmrec profile"
            )

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write profiles.parquet, its digest and scope in the file's metadata."""
        notes = {"histories": self.digest, "scope": self.scope, "leaky": str(self.scope == "all")}
        storage.write_table(path("profiles.parquet"), self.table, notes=notes)
        return ["profiles.parquet"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Profiles:
        """Read what save wrote."""
        file = path("profiles.parquet")
        notes = pq.read_schema(file).metadata
        scope: Scope = "train" if notes[b"scope"] == b"train" else "all"
        return Profiles(pl.read_parquet(file), notes[b"histories"].decode(), scope)


def profile_users(
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    cache: GenerationCache,
    progress: Progress = silent,
) -> Profiles:
    """Profile every user who has a history; what is in the cache is not asked again."""
    if config.kind == "mean":
        answers = [Answer("", "mean")] * histories.n_users
    else:
        answers = _generate(dataset, histories, descriptions, config, cache, progress)
    return Profiles(_table(dataset, answers), histories.digest, histories.scope)


def _generate(
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    cache: GenerationCache,
    progress: Progress,
) -> list[Answer]:
    texts = descriptions.texts
    engine: Profiler = ExtractiveProfiler(catalogue(dataset), texts, terms=config.terms)
    told = [_newest(histories, user, texts, config.max_items) for user in range(histories.n_users)]
    asked = [user for user, items in enumerate(told) if items]
    replies = generate(
        keys=[_key(engine.fingerprint, told[user]) for user in asked],
        requests=[told[user] for user in asked],
        ask=engine.profile,
        batch_size=engine.batch_size,
        cache=cache,
        progress=progress,
        label="profile users",
    )
    answers = [Answer("", "empty", "no training items")] * histories.n_users
    for user, reply in zip(asked, replies, strict=True):
        answers[user] = reply
    return answers


def _newest(histories: Histories, user: int, texts: Sequence[str], most: int) -> tuple[HistoryItem, ...]:
    times = histories.times
    span = range(
        max(int(histories.indptr[user]), int(histories.indptr[user + 1]) - most),
        int(histories.indptr[user + 1]),
    )
    return tuple(
        HistoryItem(int(histories.items[n]), texts[histories.items[n]], None if times is None else int(times[n]))
        for n in span
    )


def _key(fingerprint: str, history: Sequence[HistoryItem]) -> str:
    # The order of the items counts, the clock does not: only whether there is one.
    timed = bool(history) and history[0].time is not None
    return storage.hash_value(
        {
            "ask": "profile",
            "engine": fingerprint,
            "timed": timed,
            "items": [(h.item, h.description) for h in history],
        }
    )


def _table(dataset: Dataset, answers: Sequence[Answer]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": dataset.users,
            "profile": [answer.text for answer in answers],
            "status": [answer.status for answer in answers],
            "reason": [answer.reason for answer in answers],
        },
        schema={"id": pl.String, "profile": pl.String, "status": pl.String, "reason": pl.String},
    )
