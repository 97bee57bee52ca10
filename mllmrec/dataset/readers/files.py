"""Choose the files of a shop: the exact name wins, declared parts are read together, nothing else is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.dataset.readers.formats import FORMATS, OBJECTS
from mllmrec.dataset.readers.interactions import InteractionFile
from mllmrec.dataset.readers.reading import open_text, suffix
from mllmrec.errors import InputError

_INTERACTIONS = ("interactions", "ratings", "events", "orders", "purchases", "transactions")
_ITEMS = ("items", "products", "catalogue", "catalog", "meta", "articles")
_PARTS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}
_WAY_OUT = {
    **dict.fromkeys(("txt", "dat", "data", "tab"), "rename it to .csv, or to .tsv where tabs divide its columns"),
    **dict.fromkeys(("xlsx", "xls", "xlsm", "xlsb", "ods", "numbers"), "save the sheet as .csv (UTF-8)"),
    **dict.fromkeys(("zip", "bz2", "xz", "zst", "7z", "tar", "tgz", "rar"), "unpack it"),
    **dict.fromkeys(
        ("pkl", "pickle", "feather", "arrow", "h5", "hdf5", "orc", "avro", "db", "sqlite"),
        "save it as .parquet or .csv",
    ),
}
_PART = re.compile(rf"(?:(?P<base>.+)[._-])?(?P<part>{'|'.join(_PARTS)})")
_BESIDE_NAME = re.compile(r"^(?:reviews|ratings|meta)_", re.IGNORECASE)
_CORE = re.compile(r"(?:_\d+(?:core)?|_small|_sample|_ratings)$")
_REVIEWER = ('"reviewerID"', '"user_id"')
_ASIN = 10  # characters; ids of reviewers are longer
_SAMPLE_LINES = 1000
_ASIN_SHARE = 0.9


@dataclass(frozen=True)
class ShopFiles:
    """Name the files that are read.

    Attributes:
        kind: "tables", "amazon" or "mmrec".
        name: short name of the data.
        interactions: in the order in which they are read.
        items: the item table, or None.
        unread: names of the other tables in the folder.
    """

    kind: str
    name: str
    interactions: tuple[InteractionFile, ...]
    items: Path | None
    unread: tuple[str, ...]


def choose_files(folder: Path, form: str, interactions: str, items: str) -> ShopFiles:
    """Choose the files of a folder.

    Args:
        folder: the shop's folder.
        form: "auto", or the only kind that is looked for.
        interactions: pattern of the files of interactions; "": by their usual names.
        items: name of the item table; "": by its usual names.

    Returns:
        The files; none of them was read, but for the first line of possible Amazon dumps.

    Raises:
        InputError: there are no interactions, or several files could be meant.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    if interactions:
        chosen = _matching(folder, interactions)
        kind = form if form != "auto" else _kind(chosen[0])
    else:
        kind, chosen = _usual_interactions(folder, files, form)
    others = [path for path in files if path not in chosen]
    table = _matching(folder, items)[0] if items else _usual_items(folder, others, kind, chosen[0])
    read = [
        InteractionFile(path, _parts(chosen).get(path, ""), _dump_header(path) if kind == "amazon" else ())
        for path in chosen
    ]
    unread = [path.name for path in others if path != table and suffix(path) in (*FORMATS, *_WAY_OUT)]
    name = folder.resolve().name if kind == "tables" else _BESIDE_NAME.sub("", chosen[0].name.split(".")[0])
    return ShopFiles(kind, name, tuple(read), table, tuple(unread))


def tables_in(folder: Path) -> list[Path]:
    """Return the tables of a folder that can be read, by name.

    Raises:
        InputError: the folder cannot be read, or holds none.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    tables = [path for path in files if suffix(path) in FORMATS]
    if not tables:
        raise InputError(f"{folder} holds {_held(files)}; wanted tables of interactions or items, such as orders.csv")
    return tables


def check_format(path: Path) -> None:
    """Refuse a path that is no file, or has a format that is not read.

    Raises:
        InputError: it is one of these.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; name a table of interactions or items")
    if suffix(path) not in FORMATS:
        raise _unreadable(path)


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"{pattern!r} is no pattern of files inside {folder}: {error}") from error
    for path in paths:
        if suffix(path) not in FORMATS:
            raise _unreadable(path)
    if not paths:
        raise InputError(f"{folder} has no file {pattern!r}; it holds {_held(folder.iterdir())}")
    return paths


def _kind(path: Path) -> str:
    return "mmrec" if suffix(path) == "inter" else "amazon" if _is_dump(path) else "tables"


def _usual_interactions(folder: Path, files: Sequence[Path], form: str) -> tuple[str, list[Path]]:
    inter = [path for path in files if suffix(path) == "inter"]
    tables = [path for path in files if suffix(path) in FORMATS and path not in inter]
    named = _named(tables, _INTERACTIONS)
    if form == "auto" and inter and named:
        raise _ambiguous(folder, [*inter, *named], "interactions")
    dumps = (path for path in tables if not _stem(path).startswith("meta") and _is_dump(path))
    by_kind = (("mmrec", inter), ("tables", named), ("amazon", dumps), ("tables", _dotted(tables, _INTERACTIONS)))
    for kind, candidates in by_kind:
        if form in ("auto", kind) and (chosen := list(candidates)):
            if len(chosen) > 1 and not _parts(chosen):
                raise _ambiguous(folder, chosen, "interactions")
            return kind, chosen
    for path in files:
        if suffix(path) in _WAY_OUT and _dotted([path], _INTERACTIONS):
            raise _unreadable(path)
    raise InputError(
        f"{folder} holds {_held(files)}; wanted interactions.csv, .tsv, .parquet or .jsonl with items.jsonl, an Amazon "
        "review dump or an .inter file; name the file with --interactions FILE, or the form with --format"
    )


def _usual_items(folder: Path, files: Sequence[Path], kind: str, interactions: Path) -> Path | None:
    tables = [path for path in files if suffix(path) in FORMATS and suffix(path) != "inter"]
    metas = [path for path in tables if _stem(path).startswith("meta_")] if kind == "amazon" else []
    same = [path for path in (metas or tables) if _shop(path) == _shop(interactions)] if kind != "tables" else []
    chosen = same or _named(tables, _ITEMS) or _dotted(tables, _ITEMS) or metas
    if len(chosen) > 1 or (chosen and chosen == metas and not same):
        raise _ambiguous(folder, chosen, "items")
    for path in files:
        if not chosen and suffix(path) in _WAY_OUT and _dotted([path], _ITEMS):
            raise _unreadable(path)
    return chosen[0] if chosen else None


def _named(files: Iterable[Path], stems: Sequence[str]) -> list[Path]:
    """Return the files of the first usual name, or of any other usual name, or the parts of a split."""
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(_stem(path), []).append(path)
    others = [path for stem in stems[1:] for path in by_stem.get(stem, ())]
    parts = [
        path
        for stem, paths in by_stem.items()
        for path in paths
        if (match := _PART.fullmatch(stem)) and match["base"] in (None, *stems)
    ]
    return by_stem.get(stems[0], []) or others or parts


def _dotted(files: Iterable[Path], stems: Sequence[str]) -> list[Path]:
    return [path for path in files if _stem(path).split(".")[0] in stems]


def _parts(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the part of each file, where the files are the parts of one split; otherwise nothing."""
    matches = {path: match for path in paths if (match := _PART.fullmatch(_stem(path)))}
    parts = {path: _PARTS[match["part"]] for path, match in matches.items()}
    bases = {match["base"] for match in matches.values()}
    whole = len(parts) == len(paths) == len(set(parts.values())) and len(bases) == 1 and "train" in parts.values()
    return parts if whole and len(parts) > 1 else {}


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[0]


def _shop(path: Path) -> str:
    """Return the name of the shop in a file's name, without what differs between a dump and its meta file."""
    return _CORE.sub("", _BESIDE_NAME.sub("", path.name.lower().split(".")[0]))


def _is_dump(path: Path) -> bool:
    if suffix(path) not in (*OBJECTS, "csv"):
        return False
    first = next(iter(_first_lines(path, 1)), "")
    if suffix(path) != "csv":
        return any(name in first for name in _REVIEWER)
    fields = [field.strip() for field in first.split(",")]
    return len(fields) == 4 and ({"user_id", "parent_asin"} <= set(fields) or any(map(_is_asin, fields[:2])))


def _dump_header(path: Path) -> tuple[str, ...]:
    """Return the columns of a ratings file without header; the column of 10-character ids is the item."""
    if suffix(path) != "csv" or "user_id" in next(iter(_first_lines(path, 1)), ""):
        return ()
    pairs = [line.split(",")[:2] for line in _first_lines(path, _SAMPLE_LINES) if line.count(",") == 3]
    first, second = (sum(_is_asin(pair[n].strip()) for pair in pairs) for n in (0, 1))
    item_first = first > _ASIN_SHARE * len(pairs) >= second
    return ("item", "user", "rating", "timestamp") if item_first else ("user", "item", "rating", "timestamp")


def _is_asin(field: str) -> bool:
    return len(field) == _ASIN


def _first_lines(path: Path, n: int) -> list[str]:
    try:
        with open_text(path) as file:
            return [file.readline(1 << 16).decode("utf-8", "replace").strip() for _ in range(n)]
    except InputError:
        return []  # whoever reads the file says it


def _ambiguous(folder: Path, candidates: Sequence[Path], table: str) -> InputError:
    names = ", ".join(path.name for path in candidates)
    several = "; a pattern reads several as one" if table == "interactions" else ""
    return InputError(
        f"{folder}: {'several files' if len(candidates) > 1 else 'a file of an unusual name'} could be the {table}: "
        f"{names}; name it with --{table} {candidates[0].name}{several}"
    )


def _unreadable(path: Path) -> InputError:
    way_out = _WAY_OUT.get(suffix(path), f"save it as one of {', '.join(FORMATS[:2])} or jsonl")
    return InputError(f"{path.name}: .{suffix(path)} files are not read; {way_out}")


def _held(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(path.name for path in paths)[:8]) or "nothing"
