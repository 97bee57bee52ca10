"""Stage 2: each user's history -> a preference profile (method 2.3).

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
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.dependence import DOUBTFUL, counted, doubt
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer, HistoryItem, Profiler
from mllmrec.reason.engines.extractive_profile import ExtractiveProfiler
from mllmrec.reason.generate import WITHOUT_TEXT, Asking, generate
from mllmrec.reason.hidden import HiddenProfiler, hidden_states

LABEL = "profile users"


@dataclass(frozen=True, slots=True)
class Profiles:
    """What is said of each user.

    Attributes:
        table: [U] rows in user order: id, profile (empty where there is none), status ("ok", "empty" for a
            user without training items, "mean" or "hidden" where no text is asked for, "flagged", "doubtful",
            "unusable", "failed"; see `reason.engine.Answer`), reason.
        digest: of the histories that they were made from.
        scope: "train", or "all" (LEAKY).
        vectors: float32 [U, width], a model's states in the place of texts; None where there are texts. Rows of
            users without one are zero.
    """

    table: pl.DataFrame
    digest: str
    scope: Scope
    vectors: NDArray[np.float32] | None = None

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
        made = sum(counts.get(status, 0) for status in ("ok", "flagged", DOUBTFUL, "hidden"))
        what = "profiles" if self.vectors is None else f"hidden states of width {self.vectors.shape[1]:,}"
        none = counts.get("empty", 0)
        return f"{made:,} {what}{counted(counts)}, {none:,} users without history, {self.without_text:,} failed"

    @property
    def without_text(self) -> int:
        """Users who were asked for and brought nothing to use."""
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
        """Write profiles.parquet, digest and scope in its metadata, and profiles.npy where there are vectors."""
        notes = {"histories": self.digest, "scope": self.scope, "leaky": str(self.scope == "all")}
        names = ["profiles.parquet"]
        if self.vectors is not None:
            storage.write_array(path("profiles.npy"), self.vectors)
            names.append("profiles.npy")
            notes["vectors"] = storage.hash_file(path("profiles.npy"))
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
            if storage.hash_file(states) != notes[b"vectors"].decode():
                raise MismatchError(f"{states} was not written with {file}; make both again with mllmrec profile")
            vectors = np.array(storage.read_array(states))
        return Profiles(pl.read_parquet(file), notes[b"histories"].decode(), scope, vectors)


def profile_users(
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    cache: GenerationCache,
    progress: Progress = silent,
    *,
    engine: Profiler | HiddenProfiler | None = None,
    asking: Asking | None = None,
    parts: Path | None = None,
) -> Profiles:
    """Profile every user who has a history; what is in the cache is not asked again.

    Args:
        dataset: the catalogue.
        histories: training items of each user, unless the run is a LEAKY one.
        descriptions: D_s of each item.
        config: of the stage.
        cache: of generations.
        progress: told after each batch.
        engine: who profiles; the embedded engine by default. One of hidden states makes vectors.
        asking: limits and retries.
        parts: folder for finished shards of hidden states, so that a killed run goes on there.

    Raises:
        EngineError: the engine cannot start, or too many users brought nothing to use.
        LimitReached: `asking` has a limit, and users are left.
    """
    if config.kind == "mean":
        answers = [Answer("", "mean")] * histories.n_users
        return Profiles(_table(dataset, answers), histories.digest, histories.scope)
    told = tell(histories, descriptions, config.max_items)
    if isinstance(engine, HiddenProfiler):
        vectors, answers = hidden_states(engine, told, parts, progress)
        return Profiles(_table(dataset, answers), histories.digest, histories.scope, vectors)
    items = catalogue(dataset)
    engine = engine or ExtractiveProfiler(items, descriptions.texts, terms=config.terms)
    answers = _generate(engine, told, cache, progress, asking)
    if config.engine != "extractive":  # which refuses nobody
        material = [" ".join(f"{items[one.item].text} {one.description}" for one in history) for history in told]
        answers = doubt([storage.hash_value(text) for text in material], material, answers)
    return Profiles(_table(dataset, answers), histories.digest, histories.scope)


def tell(histories: Histories, descriptions: Descriptions, most: int) -> list[tuple[HistoryItem, ...]]:
    """[U] the newest items of each user's history, oldest first, as an engine sees them."""
    texts = descriptions.texts
    return [_newest(histories, user, texts, most) for user in range(histories.n_users)]


def keys_of(engine: Profiler, told: Sequence[Sequence[HistoryItem]]) -> list[str]:
    """The cache key of each history: the engine, and what it reads of the history."""
    fingerprint = engine.fingerprint
    return [
        storage.hash_value({"ask": "profile", "engine": fingerprint, **engine.material(history)}) for history in told
    ]


def _generate(
    engine: Profiler,
    told: Sequence[tuple[HistoryItem, ...]],
    cache: GenerationCache,
    progress: Progress,
    asking: Asking | None,
) -> list[Answer]:
    asked = [user for user, items in enumerate(told) if items]
    requests = [told[user] for user in asked]
    replies = generate(
        keys=keys_of(engine, requests),
        requests=requests,
        ask=engine.profile,
        batch_size=lambda: engine.batch_size,
        cache=cache,
        progress=progress,
        label=LABEL,
        engine=engine.fingerprint,
        asking=asking,
    )
    answers = [Answer("", "empty", "no training items")] * len(told)
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
