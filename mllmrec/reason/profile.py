"""Stage 2: each user's history -> a preference profile.

Sees `Histories` only. With scope "train" no held-out item can reach a profile; with scope "all" (the
paper's leak, for study) everything made from the result says LEAKY. The artefact carries the histories'
digest, and whoever uses profiles checks it against the split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllmrec.config import ProfileConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.dataset.dataset import Scope
from mllmrec.errors import MismatchError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.tables import read_table
from mllmrec.reason.answer_checks import status_counts
from mllmrec.reason.answer_suspects import mark_suspects
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import WITH_TEXT, WITHOUT_TEXT, Answer, HistoryItem, Profiler
from mllmrec.reason.engines.extractive import ExtractiveProfiler
from mllmrec.reason.generate import GenerationLimits, generate, hidden_states
from mllmrec.reason.history_prompts import HiddenProfiler

LABEL = "profile users"


@dataclass(frozen=True, slots=True)
class Profiles:
    """The preference profile of each user.

    Attributes:
        table: [U] rows in user order: id, profile (empty if there is none), status ("ok", "empty" for a
            user without training items, "mean" or "hidden" where no text is generated, "flagged", "suspect",
            "unusable", "failed"; see `reason.engine.Answer`), reason.
        digest: of the histories that they were made from.
        scope: "train", or "all" (LEAKY).
        vectors: float32 [U, width], a model's states in the place of texts; None if there are texts. Rows of
            users without one are zero.
    """

    table: pl.DataFrame
    digest: str
    scope: Scope
    vectors: NDArray[np.float32] | None = None

    @property
    def texts(self) -> list[str]:
        """Return [U] P_u of each user."""
        return self.table["profile"].to_list()

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        counts = dict(self.table["status"].value_counts().iter_rows())
        if "mean" in counts:
            return f"{counts['mean']:,} users stand as the mean of their items"
        profiled = sum(counts.get(status, 0) for status in (*WITH_TEXT, "hidden"))
        kind = "profiles" if self.vectors is None else f"hidden states of width {self.vectors.shape[1]:,}"
        empty, failed = counts.get("empty", 0), self.without_text
        return f"{profiled:,} {kind}{status_counts(counts)}, {empty:,} users without history, {failed:,} failed"

    @property
    def without_text(self) -> int:
        """Count the users whose requests brought nothing to use."""
        return int(self.table["status"].is_in(WITHOUT_TEXT).sum())

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
        """Write profiles.parquet, digest and scope in its metadata, and profiles.npy if there are vectors."""
        notes = {"histories": self.digest, "scope": self.scope, "leaky": str(self.scope == "all")}
        names = ["profiles.parquet"]
        if self.vectors is not None:
            storage.write_array(path("profiles.npy"), self.vectors)
            names.append("profiles.npy")
            notes["vectors"] = digests.hash_file(path("profiles.npy"))
        storage.write_table(path("profiles.parquet"), self.table, notes=notes)
        return names

    @staticmethod
    def load(path: Callable[[str], Path]) -> Profiles:
        """Read what save wrote.

        Raises:
            MismatchError: vectors and table were not written together.
        """
        file = path("profiles.parquet")
        notes = pq.read_schema(file).metadata
        scope: Scope = "train" if notes[b"scope"] == b"train" else "all"
        vectors = None
        if b"vectors" in notes:
            states = path("profiles.npy")
            if digests.hash_file(states) != notes[b"vectors"].decode():
                raise MismatchError(f"{states} was not written with {file}; make both again with mllmrec profile")
            vectors = np.array(storage.read_array(states))
        return Profiles(read_table(file, {}), notes[b"histories"].decode(), scope, vectors)


def profile_users(
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    cache: GenerationCache,
    progress: Progress = silent,
    *,
    engine: Profiler | HiddenProfiler | None = None,
    limits: GenerationLimits | None = None,
    parts: Path | None = None,
) -> Profiles:
    """Profile every user who has a history; what is in the cache is not generated again.

    Args:
        dataset: the catalogue.
        histories: training items of each user, unless the run is a LEAKY one.
        descriptions: D_s of each item.
        config: of the stage.
        cache: of generations.
        progress: called as users are done.
        engine: of the profiles; the extractive one by default. One of hidden states makes vectors.
        limits: limits and retries.
        parts: folder for finished shards of hidden states, so that a killed run goes on there.

    Raises:
        EngineError: the engine cannot start, or too many users brought nothing to use.
        LimitReached: `limits` has a limit, and users are left.
    """
    if config.kind == "mean":
        answers = [Answer("", "mean")] * histories.n_users
        return Profiles(_table(dataset, answers), histories.digest, histories.scope)
    newest = newest_items(histories, descriptions, config.max_items)
    if isinstance(engine, HiddenProfiler):
        vectors, answers = hidden_states(engine, newest, parts, progress)
        return Profiles(_table(dataset, answers), histories.digest, histories.scope, vectors)
    items = catalogue(dataset)
    engine = engine or ExtractiveProfiler(items, descriptions.texts, terms=config.terms)
    answers = _generate(engine, newest, cache, progress, limits)
    if config.engine != "extractive":  # which refuses nobody
        material = [" ".join(f"{items[one.item].text} {one.description}" for one in history) for history in newest]
        answers = mark_suspects([digests.hash_value(text) for text in material], material, answers)
    return Profiles(_table(dataset, answers), histories.digest, histories.scope)


def newest_items(histories: Histories, descriptions: Descriptions, most: int) -> list[tuple[HistoryItem, ...]]:
    """Return [U] the newest items of each user's history, oldest first, as an engine sees them.

    Args:
        histories: of the split in use.
        descriptions: D_s of each item.
        most: items per user.
    """
    texts = descriptions.texts
    return [_newest(histories, user, texts, most) for user in range(histories.n_users)]


def keys_of(engine: Profiler, histories: Sequence[Sequence[HistoryItem]]) -> list[str]:
    """Return the cache key of each history: the engine and its material."""
    common = {"ask": "profile", "engine": engine.fingerprint}
    return [digests.hash_value({**common, **engine.material(history)}) for history in histories]


def _generate(
    engine: Profiler,
    histories: Sequence[tuple[HistoryItem, ...]],
    cache: GenerationCache,
    progress: Progress,
    limits: GenerationLimits | None,
) -> list[Answer]:
    users = [user for user, items in enumerate(histories) if items]
    requests = [histories[user] for user in users]
    replies = generate(
        keys=keys_of(engine, requests),
        requests=requests,
        complete=engine.profile,
        batch_size=lambda: engine.batch_size,
        cache=cache,
        progress=progress,
        label=LABEL,
        engine=engine.fingerprint,
        limits=limits,
    )
    answers = [Answer("", "empty", "no training items")] * len(histories)
    for user, reply in zip(users, replies, strict=True):
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
