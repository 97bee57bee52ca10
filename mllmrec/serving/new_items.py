"""Items that a run did not know, from a file: described, encoded, placed, and shown to those who would like them.

Nothing is fitted. The run's own engine describes the items and its encoder reads them; answers go to the generation
cache. The model places the vectors among those of its items. For each new item the table names the users in whose
lists it would stand highest, with that place; a user's other new items compete in it too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.dataset.readers.files import check_format
from mllmrec.dataset.readers.formats import Reading
from mllmrec.dataset.readers.items import read_items
from mllmrec.dataset.readers.source import Rejects
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, encode_items
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.tables import write_any
from mllmrec.models.base import Recommender
from mllmrec.reason.cache import GenerationCache, open_cache
from mllmrec.reason.describe import describe_items
from mllmrec.reason.requests import Engines
from mllmrec.recommend import list_table
from mllmrec.runs import Run
from mllmrec.serving import require_encoder

_PAIRS = 1 << 24  # users x new items that are ranked at once


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items of a file.

    Attributes:
        dataset: the run's dataset with only these items in its catalogue.
        notes: one line each, of what was read and left out.
    """

    dataset: Dataset
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlacedItems:
    """Tables of new items.

    Attributes:
        users: item, rank (from 1), user, place: the users in whose lists the item would stand highest.
        similar: item, rank (from 1), similar, score.
        suffix: "parquet" or "jsonl".
        summary: one line.
    """

    users: pl.DataFrame
    similar: pl.DataFrame
    suffix: str
    summary: str

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write new_items and similar_items; return their names."""
        names = [f"{name}.{self.suffix}" for name in ("new_items", "similar_items")]
        for name, table in zip(names, (self.users, self.similar), strict=True):
            write_any(path(name), table)
        return names


def read_new_items(
    file: Path, dataset: Dataset, columns: dict[str, str] | None = None, *, max_rejected: float = 0.05
) -> NewItems:
    """Read an item table of any format that `mllmrec prepare` reads; pictures lie in its folder.

    Args:
        file: the table.
        dataset: of the run; items that it has are left out.
        columns: columns that the user named, of `parse_columns`.
        max_rejected: share of the file's rows that may be left out, in [0, 1].

    Raises:
        InputError: the file cannot be read, too many of its rows cannot, or it has no item that is new.
    """
    check_format(file)
    rejects = Rejects(max_rejected)
    read = read_items(file, file.parent, columns or {}, Reading(rejects))
    table = read.table.rename({"item": "id"})
    new = table.filter(~pl.col("id").is_in(dataset.item_ids.implode()))
    notes = [f"{len(new):,} new items in {file.name}", *read.warnings]
    notes += rejects.notes(named=False)
    if known := len(table) - len(new):
        notes.append(f"{known:,} items are left out, for the run knows them")
    if not len(new):
        raise InputError(f"{file} has no item that the run does not know; {'; '.join(notes[1:]) or 'it has no rows'}")
    return NewItems(replace(dataset, items=new, features={}), tuple(notes))


def encode_new_items(
    items: NewItems, run: Run, config: Config, cache: GenerationCache, parts: Path, progress: Progress = silent
) -> tuple[Vectors, tuple[str, ...]]:
    """Describe and encode items as the run did with its own.

    Args:
        items: of a file.
        run: whose dataset says what the shop sells.
        config: of the run.
        cache: of generations.
        parts: folder for unfinished work.
        progress: called while it works.

    Returns:
        float32 [N, d], and lines of what was made.

    Raises:
        InputError: the run's item vectors came with its data, so that there is no encoder.
        EngineError: the engine or the encoder cannot start.
    """
    require_encoder(config.encode, "new items", "in Python, model.add_items(features) places vectors of yours")
    engines = Engines(config, run.dataset)
    described = describe_items(items.dataset, config.describe, cache, progress, engine=engines.describer)
    engines.release()
    vectors, cuts = encode_items(items.dataset, described, config.encode, parts, progress)
    empty = int((~vectors.any(axis=1)).sum())
    without = (
        (f"{empty:,} items have neither text nor pictures that can be used: nobody is shown them",) if empty else ()
    )
    return vectors, (described.summary, f"{sum(1 for cut in cuts if cut):,} documents shortened", *without)


def place_new_items(
    model: Recommender, items: NewItems, vectors: Vectors, dataset: Dataset, config: Config, progress: Progress = silent
) -> PlacedItems:
    """Return the users to whom new items would be shown, and the items most like them.

    Args:
        model: of the run, with `item_features`.
        items: N items of a file.
        vectors: float32 [N, d], of these items.
        dataset: of the run.
        config: users per item (recommend.top), similar items (recommend.similar), format.
        progress: called after each block of items.

    Raises:
        InputError: the model cannot place new items.
    """
    settings, n_new = config.recommend, len(vectors)
    wider = model.add_items(vectors)
    n_known, known_ids = dataset.n_items, items.dataset.item_ids
    places = _places(wider, dataset, np.flatnonzero(vectors.any(axis=1)), n_new, settings.top, progress)
    users, ranks = places
    rows, at = np.nonzero(users >= 0)
    table = pl.DataFrame(
        {
            "item": known_ids.gather(rows),
            "rank": pl.Series(at + 1, dtype=pl.Int32),
            "user": dataset.users.gather(users[rows, at]),
            "place": pl.Series(ranks[rows, at] + 1, dtype=pl.Int32),
        }
    )
    similar, scores = wider.similar_items(np.arange(n_known, n_known + n_new), settings.similar)
    names = pl.concat([dataset.item_ids, known_ids])
    shown = int((ranks[:, 0] < settings.top).sum()) if n_new else 0
    return PlacedItems(
        table,
        list_table("item", known_ids, similar, scores, "similar", names),
        settings.format,
        f"{n_new:,} items placed; {shown:,} of them would stand among the first {settings.top} of somebody's list",
    )


def _places(
    model: Recommender, dataset: Dataset, new: NDArray[np.int64], n_new: int, k: int, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the k users of each new item in whose lists it ranks highest, and its ranks there.

    Args:
        model: of the known and the new items, the new ones last.
        dataset: of the run; users without training items are left out.
        new: int64 [n], numbers of the new items to place, from 0.
        n_new: number of all new items.
        k: users per item.
        progress: called after each block of items.

    Returns:
        users int64 [n_new, k], padded with -1, and ranks int32 [n_new, k] from 0.
    """
    users = np.full((n_new, k), -1, np.int64)
    ranks = np.full((n_new, k), np.iinfo(np.int32).max, np.int32)
    trained = np.diff(dataset.train.indptr) > 0
    owned = dataset.histories("all").user_items()
    exclude = CSR(owned.indptr, owned.indices, None, dataset.n_items + n_new)
    shown = np.flatnonzero(trained)
    step = max(1, _PAIRS // max(1, len(shown)))
    for start in range(0, len(new), step):
        block = new[start : start + step]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(trained, dtype=np.int64)]) * len(block)
        columns = np.tile((dataset.n_items + block).astype(np.int32), len(shown))
        heldout = CSR(indptr, columns, None, dataset.n_items + n_new)
        own = model.ranks(exclude, heldout).reshape(len(shown), len(block))
        best = np.argsort(own, axis=0, kind="stable")[:k]  # of equal ranks the first user
        users[block, : len(best)] = shown[best].T
        ranks[block, : len(best)] = np.take_along_axis(own, best, axis=0).T
        progress("rank new items", min(start + step, len(new)), len(new))
    return users, ranks


def serve_new_items(
    run: Run, file: Path, columns: dict[str, str], config: Config, cache: Path | None, progress: Progress = silent
) -> tuple[PlacedItems, tuple[str, ...]]:
    """Read, describe, encode and place the items of a file; return the tables and lines of what was done.

    Args:
        run: finished up to its train stage.
        file: item table.
        columns: columns that the user named, of `parse_columns`.
        config: settings of the run.
        cache: generation cache; None: the user's own.
        progress: called while it works.

    Raises:
        MllmrecError: whatever a step refuses.
    """
    items = read_new_items(file, run.dataset, columns)
    model = run.fitted
    with open_cache(cache) as generations, tempfile.TemporaryDirectory() as parts:
        vectors, notes = encode_new_items(items, run, config, generations, Path(parts), progress)
    model.item_features = run.features.items
    placed = place_new_items(model, items, vectors, run.dataset, config, progress)
    return placed, (*items.notes, *notes, placed.summary)
