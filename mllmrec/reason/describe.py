"""Stage 1: item images -> descriptions.

Reads the catalogue and its pictures; knows nothing of users or interactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mllmrec.config import DescribeConfig
from mllmrec.dataset import Dataset
from mllmrec.foundation import digests, storage
from mllmrec.foundation.images import MOST_FILE_BYTES
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.tables import read_table
from mllmrec.reason.answer_checks import status_counts
from mllmrec.reason.answer_suspects import mark_suspects
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.engine import WITH_TEXT, WITHOUT_TEXT, Answer, Describer, Item
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.generate import GenerationLimits, generate

LABEL = "describe items"
_SILENT_SECONDS = 1.0  # pictures that are hashed faster need no progress


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The engine's text on each item's pictures.

    Attributes:
        table: [I] rows in catalogue order: id, description (empty if there is none), status ("ok",
            "text-only", "flagged", "suspect", "unusable", "failed"; see `reason.engine.Answer`), reason.
    """

    table: pl.DataFrame

    @property
    def texts(self) -> list[str]:
        """Return [I] D_s of each item, empty if there is none."""
        return self.table["description"].to_list()

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        counts = dict(self.table["status"].value_counts().iter_rows())
        refused = self.table.filter((pl.col("status") == "text-only") & (pl.col("reason") != ""))
        described = sum(counts.get(status, 0) for status in WITH_TEXT)
        return (
            f"{described:,} items described{status_counts(counts)}, {counts.get('text-only', 0):,} text only "
            f"({len(refused):,} pictures unusable), {self.without_text:,} failed"
        )

    @property
    def without_text(self) -> int:
        """Count the items whose requests brought nothing to use."""
        return int(self.table["status"].is_in(WITHOUT_TEXT).sum())

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write descriptions.parquet."""
        storage.write_table(path("descriptions.parquet"), self.table)
        return ["descriptions.parquet"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Descriptions:
        """Read what save wrote."""
        return Descriptions(read_table(path("descriptions.parquet"), {}))


def catalogue(dataset: Dataset, *, images: bool = True) -> list[Item]:
    """Return [I] the dataset's items as an engine sees them; without `images`, only their text."""
    return [
        Item(
            title=row["title"] or "",
            brand=row["brand"] or "",
            categories=tuple(row["categories"] or ()),
            description=row["description"] or "",
            price=row["price"],
            images=tuple(dataset.folder / name for name in row["images"] or ()) if images else (),
        )
        for row in dataset.items.iter_rows(named=True)
    ]


def describe_items(
    dataset: Dataset,
    config: DescribeConfig,
    cache: GenerationCache,
    progress: Progress = silent,
    *,
    engine: Describer | None = None,
    limits: GenerationLimits | None = None,
) -> Descriptions:
    """Describe every item; what is in the cache is not generated again.

    An item whose pictures cannot be used goes on with only its text, and its row says why.

    Args:
        dataset: the catalogue.
        config: of the stage.
        cache: of generations.
        progress: called as items are done.
        engine: of the descriptions; the extractive one by default.
        limits: limits and retries.

    Raises:
        EngineError: the engine cannot start, or too many items brought nothing to use.
        LimitReached: `limits` has a limit, and items are left.
    """
    engine = engine or ExtractiveDescriber()
    items = catalogue(dataset, images=config.images)
    keys = keys_of(engine, items, progress)
    answers = generate(
        keys=keys,
        requests=items,
        complete=engine.describe,
        batch_size=lambda: engine.batch_size,
        cache=cache,
        progress=progress,
        label=LABEL,
        engine=engine.fingerprint,
        limits=limits,
    )
    if config.engine != "extractive":  # which says the same of pictures that look the same, and refuses none
        answers = mark_suspects(keys, [item.text for item in items], answers)
    return Descriptions(_table(dataset, answers))


def keys_of(engine: Describer, items: Sequence[Item], progress: Progress = silent) -> list[str]:
    """Return [I] the cache key of each item: the engine, its material, and the bytes of its pictures.

    Args:
        engine: of the descriptions.
        items: [I] the catalogue.
        progress: called as pictures are hashed.
    """
    fingerprint = engine.fingerprint
    pictures = dict.fromkeys(path for item in items for path in engine.pictures(item))
    hashes: dict[Path, str] = {}
    started = time.monotonic()
    for path in pictures:
        hashes[path] = _image_digest(path)
        if time.monotonic() - started > _SILENT_SECONDS:
            progress("hash pictures", len(hashes), len(pictures))
    return [
        digests.hash_value(
            {
                "ask": "describe",
                "engine": fingerprint,
                **engine.material(item),
                "images": [hashes[path] for path in engine.pictures(item)],
            }
        )
        for item in items
    ]


def _image_digest(path: Path) -> str:
    # By content: the same path with other bytes is another picture.
    try:
        size = path.stat().st_size
        if size > MOST_FILE_BYTES:  # no engine opens it, and it may be holes without end
            return f"too large: {size} bytes"
        return digests.hash_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _table(dataset: Dataset, answers: Sequence[Answer]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": dataset.item_ids,
            "description": [answer.text for answer in answers],
            "status": [answer.status for answer in answers],
            "reason": [answer.reason for answer in answers],
        },
        schema={"id": pl.String, "description": pl.String, "status": pl.String, "reason": pl.String},
    )
