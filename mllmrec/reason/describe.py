"""Stage 1: item images -> descriptions (method 2.1).

Knows the catalogue and its pictures; knows nothing of users or interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mllmrec.config import DescribeConfig
from mllmrec.dataset import Dataset
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.dependence import DOUBTFUL, counted, doubt
from mllmrec.reason.engine import Answer, Describer, Item
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.generate import WITHOUT_TEXT, Asking, generate

LABEL = "describe items"


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What the engine says of each item's pictures.

    Attributes:
        table: [I] rows in catalogue order: id, description (empty where there is none), status ("ok",
            "text-only", "flagged", "doubtful", "unusable", "failed"; see `reason.engine.Answer`), reason.
    """

    table: pl.DataFrame

    @property
    def texts(self) -> list[str]:
        """[I] D_s of each item, empty where there is none."""
        return self.table["description"].to_list()

    @property
    def summary(self) -> str:
        """One line for a person."""
        counts = dict(self.table["status"].value_counts().iter_rows())
        refused = self.table.filter((pl.col("status") == "text-only") & (pl.col("reason") != ""))
        described = sum(counts.get(status, 0) for status in ("ok", "flagged", DOUBTFUL))
        return (
            f"{described:,} items described{counted(counts)}, {counts.get('text-only', 0):,} text only "
            f"({len(refused):,} pictures unusable), {self.without_text:,} failed"
        )

    @property
    def without_text(self) -> int:
        """Items that were asked for and brought nothing to use."""
        return int(self.table["status"].is_in(WITHOUT_TEXT).sum())

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write descriptions.parquet."""
        storage.write_table(path("descriptions.parquet"), self.table)
        return ["descriptions.parquet"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Descriptions:
        """Read what save wrote."""
        return Descriptions(pl.read_parquet(path("descriptions.parquet")))


def catalogue(dataset: Dataset, *, images: bool = True) -> list[Item]:
    """[I] the dataset's items as an engine sees them; without `images`, their text alone."""
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
    asking: Asking | None = None,
) -> Descriptions:
    """Describe every item; what is in the cache is not asked again.

    An item whose pictures cannot be used goes on with its text alone, and its row says why.

    Args:
        dataset: the catalogue.
        config: of the stage.
        cache: of generations.
        progress: told after each batch.
        engine: who describes; the embedded engine by default.
        asking: limits and retries.

    Raises:
        EngineError: the engine cannot start, or too many items brought nothing to use.
        LimitReached: `asking` has a limit, and items are left.
    """
    engine = engine or ExtractiveDescriber()
    items = catalogue(dataset, images=config.images)
    keys = keys_of(engine, items)
    answers = generate(
        keys=keys,
        requests=items,
        ask=engine.describe,
        batch_size=lambda: engine.batch_size,
        cache=cache,
        progress=progress,
        label=LABEL,
        engine=engine.fingerprint,
        asking=asking,
    )
    if config.engine != "extractive":  # which says the same of pictures that look the same, and refuses none
        answers = doubt(keys, [item.text for item in items], answers)
    return Descriptions(_table(dataset, answers))


def keys_of(engine: Describer, items: Sequence[Item]) -> list[str]:
    """[I] cache key of each item: the engine, what it reads of the item, and the bytes of its pictures."""
    fingerprint = engine.fingerprint
    digests: dict[Path, str] = {}
    for item in items:
        for path in engine.pictures(item):
            if path not in digests:
                digests[path] = _image_digest(path)
    return [
        storage.hash_value(
            {
                "ask": "describe",
                "engine": fingerprint,
                **engine.material(item),
                "images": [digests[path] for path in engine.pictures(item)],
            }
        )
        for item in items
    ]


def _image_digest(path: Path) -> str:
    # By content: the same path with other bytes is another picture.
    try:
        return storage.hash_file(path)
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
