"""Make a dataset of a shop's files: read, clean, k-core, map ids, split, save."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from mllmrec.dataset import clean, splits, store
from mllmrec.dataset.dataset import Dataset
from mllmrec.dataset.readers.formats import Reading
from mllmrec.dataset.readers.interactions import rating_column, time_column
from mllmrec.dataset.readers.shop import read_shop
from mllmrec.dataset.readers.source import ITEMS, Rejects, Source
from mllmrec.errors import InputError
from mllmrec.foundation.progress import Progress, silent

if TYPE_CHECKING:
    from mllmrec.dataset.download import ImageDownloader

_RAW_CORE = 5  # the usual core of this literature


class PrepareOptions(BaseModel):
    """Choose how raw data becomes a dataset.

    Attributes:
        format: form of the files; "auto": by what lies in the folder.
        k_core: least interactions of each user and item; None: 5, or 0 where the split is given.
        min_rating: interactions rated lower are dropped.
        split: rule by which interactions are held out; "auto": given, else random.
        split_column: column of a given split.
        seed: of the split, where its rule draws.
        cold_share: of the items that `cold-items` hides for the test, and as many for validation.
        columns: columns by role, as `parse_columns` returns them.
        category: what the shop sells, for prompts.
        max_rejected: share of a file's rows that may be left out, in [0, 1].
        interactions: pattern of the files of interactions; "": by their usual names.
        items: name of the item table; "": by its usual names.
        max_unpacked: GiB that one packed file may unpack to; None: a hundred times its size, at least 256 MiB.
        max_rows: rows that one file may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["auto", "tables", "amazon", "mmrec"] = "auto"
    k_core: Annotated[int, Field(ge=0)] | None = None
    min_rating: float | None = None
    split: Literal["auto", "random", "user-time", "leave-one-out", "global-time", "cold-items", "given"] = "auto"
    split_column: str | None = None
    seed: Annotated[int, Field(ge=0)] = 999
    cold_share: Annotated[float, Field(gt=0, lt=0.5)] = splits.COLD_SHARE
    columns: Mapping[str, str] = {}
    category: str = ""
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.05
    interactions: str = ""
    items: str = ""
    max_unpacked: Annotated[float, Field(gt=0)] | None = None
    max_rows: Annotated[int, Field(gt=0)] = 500_000_000


def prepare(
    source: Path | str,
    out: Path | str,
    options: PrepareOptions | None = None,
    *,
    downloader: ImageDownloader | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Dataset:
    """Make a dataset folder from a shop's files.

    Args:
        source: folder with the files.
        out: the dataset folder.
        options: format, filters, split.
        downloader: fetches the pictures that kept items name by address; None: they are left where they are.
        force: replace an existing dataset.
        progress: called while it works.

    Returns:
        The dataset, as loaded from `out`.

    Raises:
        InputError: the files cannot be read, or nothing is left of them.
        LeakError: a given split has one interaction in two parts.
        StorageError: `out` is taken or cannot be written.
    """
    options = options or PrepareOptions()
    store.check_free(Path(out), force=force)
    raw = _read(Path(source), Path(out), options, progress)
    rule = _rule(raw, options)
    kept, steps, warnings = _clean(raw, rule, options)
    users, items, interactions, features = _map_ids(raw, kept, rule, keep_all=_core(rule, options) == 0)
    del kept
    part = splits.assign(interactions, rule, options.seed, options.cold_share)
    interactions = interactions.with_columns(split=pl.Series(part))
    if rule == "cold-items":
        steps |= splits.count_hidden(interactions, options.seed, options.cold_share)
    warnings += _held_out_warnings(interactions, rule)
    if downloader is not None:
        from mllmrec.dataset.download import add_pictures

        items, downloads = add_pictures(items, downloader, progress)
        warnings += downloads.warnings
        steps |= downloads.steps
    store.save(
        Path(out),
        users=users,
        items=items,
        interactions=interactions,
        features=features,
        rejected=raw.rejects.listed,
        facts=_facts(raw, options, rule, steps, warnings),
        force=force,
        progress=progress,
    )
    del raw, interactions  # load() reads them anew, and memory may not hold them twice
    return store.load(Path(out))


def _read(source: Path, out: Path, options: PrepareOptions, progress: Progress) -> Source:
    gibibytes = options.max_unpacked
    reading = Reading(
        rejects=Rejects(options.max_rejected),
        max_bytes=None if gibibytes is None else int(gibibytes * (1 << 30)),
        max_rows=options.max_rows,
        progress=progress,
        scratch=_scratch(out),
    )
    return read_shop(
        source,
        options.columns,
        reading,
        form=options.format,
        interactions=options.interactions,
        items=options.items,
        split_column=options.split_column,
    )


def _facts(
    raw: Source, options: PrepareOptions, rule: str, steps: Mapping[str, int], warnings: Sequence[str]
) -> dict[str, Any]:
    """Return the manifest's record of what was read, with which options, and what was left out."""
    return {
        "name": raw.name,
        "kind": raw.kind,
        "category": options.category,
        "options": options.model_dump(mode="json"),
        "split": splits.split_facts(rule, options.seed, options.cold_share),
        "steps": steps,
        "read": {
            "files": [asdict(file) for file in raw.files],
            "unread": raw.unread,
            "time": {"unit": raw.interactions.time_unit, "form": raw.interactions.time_form},
        },
        "rejected": raw.rejects.counts.total(),
        "warnings": [*raw.warnings, *warnings],
    }


def _scratch(out: Path) -> Path | None:
    """Return the folder that will hold the dataset, for temporary files; None if it cannot be written to."""
    place = next((folder for folder in out.absolute().parents if folder.is_dir()), None)
    return place if place is not None and os.access(place, os.W_OK) else None


def _rule(raw: Source, options: PrepareOptions) -> str:
    given = len(raw.interactions.parts) > 0 and bool((raw.interactions.rows.split.read() >= 0).any())
    if options.split == "auto":
        return "given" if given else "random"
    if options.split == "given" and not given:
        raise InputError("--split given: the interactions have no split column; name it with --split-column")
    return options.split


def _core(rule: str, options: PrepareOptions) -> int:
    if options.k_core is not None:
        return options.k_core
    return 0 if rule == "given" else _RAW_CORE


def _clean(raw: Source, rule: str, options: PrepareOptions) -> tuple[clean.Places, dict[str, int], list[str]]:
    """Return the places of the rows that every filter keeps, the rows that each step dropped, and warnings."""
    interactions, rows = raw.interactions, raw.interactions.rows
    rated = clean.oldest_first(interactions, options.min_rating)
    single = clean.drop_repeats(interactions, rated, given=rule == "given")
    core, rounds = clean.k_core(interactions, single, _core(rule, options))
    n_rows = len(rows.user)
    if not len(core):
        emptied = f"the {_core(rule, options)}-core" if len(single) else "the minimum rating" if n_rows else "reading"
        raise InputError(f"no interactions are left after {emptied}; lower --k-core or --min-rating")
    lost = {
        side: [np.count_nonzero(clean.count(numbers, kept, len(names))) for kept in (single, core)]
        for side, numbers, names in (("users", rows.user, rows.users), ("items", rows.item, rows.items))
    }
    steps = {
        "interactions read": n_rows,
        "dropped by rating": n_rows - len(rated),
        "dropped as repeats": len(rated) - len(single),
        "dropped by k-core": len(single) - len(core),
        **{f"{side} dropped by k-core": int(before - after) for side, (before, after) in lost.items()},
        "k-core rounds": rounds,
    }
    warnings = []
    if options.min_rating is not None and (unrated := int(np.isnan(rows.ratings.read()).sum())):
        warnings.append(f"{unrated:,} interactions have no rating; --min-rating keeps them")
    if repeats := len(rated) - len(single):
        warnings.append(f"{repeats} interactions repeat a user and item; the earliest of each is kept")
    return core, steps, warnings


def _held_out_warnings(interactions: pl.DataFrame, rule: str) -> list[str]:
    part, users = interactions["split"].to_numpy(), interactions["user"].to_numpy()
    trained = np.zeros(int(users.max()) + 1, bool)
    trained[users[part == 0]] = True
    empty = [name for name, n in (("validation", 1), ("test", 2)) if not trained[users[part == n]].any()]
    if not empty:
        return []
    missing = " and no ".join(f"{name} interaction" for name in empty)
    effect = "no metric can be measured" if "test" in empty else "models cannot be stopped or chosen by it"
    return [
        f"the split ({rule}) has no {missing} of a user with training interactions: {effect}; choose another --split"
    ]


def _map_ids(
    raw: Source, kept: clean.Places, rule: str, *, keep_all: bool
) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame, dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """Replace the shop's ids by indices; no other place does.

    Users go by first appearance; items in the order of the item table, then those that only interactions name.
    """
    rows = raw.interactions.rows
    user_places = clean.by_appearance(rows.user, kept, len(rows.users))
    users = rows.users.gather(user_places)
    seen = rows.items.gather(clean.by_appearance(rows.item, kept, len(rows.items)))
    listed = raw.items if keep_all else raw.items.filter(pl.col("item").is_in(seen.implode()))
    own = raw.items.with_row_index("row").join(listed.select("item"), on="item", maintain_order="left")["row"]
    unlisted = seen.filter(~seen.is_in(raw.items["item"].implode()))
    items = pl.concat([listed, pl.DataFrame({"item": unlisted}, schema={"item": ITEMS["item"]})], how="diagonal")
    index = np.empty(len(rows.users), np.int32)
    index[user_places] = np.arange(len(user_places))
    by_user = clean.group(index[rows.user[kept]], len(users))
    ordered, starts = kept[by_user.places], by_user.starts
    del by_user
    numbers = pl.DataFrame({"id": items["item"]}).with_row_index("index")
    item_index = pl.DataFrame({"id": rows.items}).join(numbers, on="id", how="left", maintain_order="left")["index"]
    item_places = item_index.cast(pl.Int32).fill_null(-1).to_numpy()
    columns = {  # the wide ones first: each is read whole, and memory holds few others then
        "rating": rating_column(rows.ratings.read()[ordered]),
        "timestamp": time_column(rows.times.read()[ordered]),
        "item": item_places[rows.item[ordered]],
        "user": np.repeat(np.arange(len(users), dtype=np.int32), np.diff(starts)),
    }
    mapped = pl.DataFrame({name: columns[name] for name in ("user", "item", "rating", "timestamp")})
    if rule == "given":
        mapped = mapped.with_columns(split=raw.interactions.split_column(ordered))
    features = {name: array[own.to_numpy()] for name, array in raw.features.items()}
    return users, items.rename({"item": "id"}), mapped, features
