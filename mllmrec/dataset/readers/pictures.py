"""Find an item's pictures in whatever a shop's table holds: paths, addresses, lists, structs, bytes.

| form | example |
|---|---|
| path in the shop's folder | `images/p1.jpg`, `images\\p1.jpg`, `p1.jpg` (in images/) |
| address | `https://img.example.org/p1.jpg`, `//img.example.org/p1.jpg` |
| several in one text | `a.jpg\\|b.jpg`, `['a.jpg', 'b.jpg']`, `["a.jpg"]` |
| several sizes of one | `{"hi_res": ..., "large": ...}`, alone, in a list, or as a dict of lists |
| the picture itself | bytes, `{"bytes": ..., "path": ...}`, `data:image/png;base64,...` |

An item without any has the files `images/ID.jpg`, `.png` and so on. Links are followed, and must end inside the
folder. Whatever is not taken is counted with its reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mllmrec.dataset.readers.literals import unpack_cell
from mllmrec.foundation.images import ENDINGS, ImageRefusedError, image_kind

_FILE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".jpe", ".jfif")
_SIZES = ("hi_res", "hires", "large", "full", "original", "medium", "small", "thumb", "thumbnail")  # best first
_FIELDS = (*_SIZES, "url", "src", "href", "link", "path", "file", "filename", "file_name", "image", "images")
_EMPTY_WORDS = frozenset({"", "nan", "none", "null", "n/a", "na", "<na>", "-", "[]", "{}"})
_ADDRESS = re.compile(r"(?:https?:)?//[^/\s]", re.IGNORECASE)
# A mark may be part of an address or of a file's name; it divides for sure only before another address.
_BEFORE_ADDRESS = re.compile(r"[\s,;]+(?=https?://)", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
_PATH_CHARACTERS = 1000
_ADDRESS_CHARACTERS = 4000
_PICTURES_PER_ITEM = 100
_NESTING = 8

OUTSIDE = "image paths lead out of the source folder and are ignored"
MISSING = "image files are missing"
NO_TEXT = "image values are neither text nor a picture (a number, true or false, a date) and are ignored"
BAD_CHARACTERS = "image paths or addresses hold a character that none can have and are ignored"
TOO_LONG = "image paths or addresses are too long and are ignored"
NO_ADDRESS = "image addresses are neither http nor https and are ignored"
NO_PICTURE = "pictures inside the table cannot be used and are ignored"
TOO_MANY = f"items have more than {_PICTURES_PER_ITEM} pictures; the rest are ignored"
NO_FIELD = "image objects have no field that names a picture and are ignored"
UNREADABLE = "image files cannot be opened and are ignored"


@dataclass
class _Count:
    """The values that were not taken for one reason, and the item of the first."""

    number: int
    example: str
    detail: str


class Pictures:
    """The pictures of one shop's folder.

    Args:
        folder: the shop's folder; no file outside it is ever taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = Path(os.path.realpath(folder))
        self._refused: dict[str, _Count] = {}

    def find(self, values: Iterable[object], item: str) -> tuple[list[str], list[str]]:
        """Return the pictures of one item.

        Args:
            values: what the item's picture columns hold, the preferred column first; the first that names a usable
                picture decides.
            item: the item's id.

        Returns:
            Local files, absolute, and addresses, each once and in order.
        """
        for value in values:
            files, addresses = self._take(value, item)
            if files or addresses:
                return files, addresses
        file = self._by_id(item)
        return ([file] if file else []), []

    def warnings(self) -> Iterable[str]:
        """Yield one line for each reason: how many values were not taken, and an example."""
        for reason, count in self._refused.items():
            detail = f": {count.detail}" if count.detail else ""
            yield f"{count.number} {reason} (as of item {count.example[:60]!r}{detail})"

    def _refuse(self, refused: _Picture, item: str) -> None:
        self._refused.setdefault(refused.reason, _Count(0, item, refused.detail)).number += 1

    def _take(self, value: object, item: str) -> tuple[list[str], list[str]]:
        files: dict[str, None] = {}
        addresses: dict[str, None] = {}
        for number, entry in enumerate(_entries(value)):
            if number == _PICTURES_PER_ITEM:
                self._refuse(_Picture(reason=TOO_MANY), item)
                break
            candidates = [self._resolve(candidate) for candidate in entry]
            usable = next((candidate for candidate in candidates if not candidate.reason), None)
            if usable:
                (addresses if usable.is_address else files)[usable.value] = None
            elif candidates:
                self._refuse(candidates[0], item)
        return list(files), list(addresses)

    def _resolve(self, value: object) -> _Picture:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _keep_bytes(bytes(value))
        if not isinstance(value, str):
            return _Picture(reason=NO_FIELD if isinstance(value, dict) else NO_TEXT)
        text = value.strip()
        if text[:5].lower() == "data:":
            return _from_data_address(text)
        if any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF or ord(c) == 127 for c in text):
            return _Picture(reason=BAD_CHARACTERS)
        if _ADDRESS.match(text) and not text.startswith(str(self._root)):
            if len(text) > _ADDRESS_CHARACTERS:
                return _Picture(reason=TOO_LONG)
            return _Picture(f"https:{text}" if text.startswith("//") else text, is_address=True)
        if len(text) > _PATH_CHARACTERS:
            return _Picture(reason=TOO_LONG)
        if "://" in text and not text.lower().startswith("file://"):
            return _Picture(reason=NO_ADDRESS)
        return self._from_path(text)

    def _from_path(self, name: str) -> _Picture:
        reasons = []
        for candidate in _spellings(name):
            found = self._inside(candidate)
            if not found.reason:
                return found
            reasons.append(found.reason)
        return _Picture(reason=OUTSIDE if reasons[0] == OUTSIDE else reasons[-1] if UNREADABLE in reasons else MISSING)

    def _inside(self, name: str) -> _Picture:
        """Return a file's real path, where that lies in the folder once every link is followed."""
        try:
            path = Path(os.path.realpath(self._root / name))
            if path == self._root or not path.is_relative_to(self._root):
                return _Picture(reason=OUTSIDE)
            str(path).encode("utf-8")
            if not path.is_file():
                return _Picture(reason=MISSING)
            return _Picture(str(path)) if os.access(path, os.R_OK) else _Picture(reason=UNREADABLE)
        except UnicodeEncodeError:
            return _Picture(reason=BAD_CHARACTERS)
        except (OSError, ValueError):
            return _Picture(reason=UNREADABLE)

    def _by_id(self, item: str) -> str | None:
        name = self._named_by_id.get(item)
        if name is None:
            return None
        found = self._inside(f"images/{name}")
        if found.reason:
            self._refuse(found, item)
        return found.value or None

    @cached_property
    def _named_by_id(self) -> dict[str, str]:
        """The file of images/ that each id has; `.jpg` goes before `.png`, small letters before capitals."""
        found: dict[str, tuple[int, str]] = {}
        try:
            names = sorted((path.name for path in (self._root / "images").iterdir()), reverse=True)
        except OSError:
            return {}
        for name in names:
            stem, _, ending = name.rpartition(".")
            if f".{ending.lower()}" in _FILE_ENDINGS:
                rank = _FILE_ENDINGS.index(f".{ending.lower()}")
                if stem not in found or rank <= found[stem][0]:
                    found[stem] = rank, name
        return {stem: name for stem, (_, name) in found.items()}


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file or an address, or the reason why it is neither."""

    value: str = ""
    is_address: bool = False
    reason: str = ""
    detail: str = ""


def _spellings(name: str) -> Iterator[str]:
    """Yield a path as it is written, then with Windows' and web servers' habits undone."""
    if name.lower().startswith("file://"):
        name = unquote(name[7:])
    slashed = name.replace("\\", "/")
    forms = (name, slashed, unquote(slashed), slashed.lstrip("/"))
    yield from dict.fromkeys((*forms, f"images/{slashed.lstrip('/')}"))


def _entries(value: object, depth: int = 0) -> Iterator[Sequence[object]]:
    """Yield each picture of a cell as its candidates, the best first; what is empty yields nothing."""
    value = unpack_cell(value)
    if _is_empty(value) or depth > _NESTING:
        return
    if isinstance(value, str):
        yield from ([part] for part in _split(value))
    elif isinstance(value, dict):
        yield from _from_dict(value, depth)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _entries(part, depth + 1)
    else:
        yield [value]


def _is_empty(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY_WORDS
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, (list, tuple, set, dict, bytes)) and not value)
    )


def _split(text: str) -> Iterator[str]:
    """Yield the paths and addresses of one text."""
    if text.lstrip()[:5].lower() == "data:":
        yield text
        return
    for line in re.split(r"[|\n\r\t]", text):
        for part in _BEFORE_ADDRESS.split(line):
            pieces = [part] if _ADDRESS.match(part.strip()) else _split_paths(part)
            yield from (piece.strip() for piece in pieces if piece.strip())


def _split_paths(text: str) -> list[str]:
    """Divide at commas and semicolons where every piece is named like a picture: `a, b.jpg` is one file."""
    pieces = [piece.strip() for piece in re.split(r"[,;]", text)]
    pieces = [piece for piece in pieces if piece]
    return pieces if all(piece.lower().endswith(_FILE_ENDINGS) for piece in pieces) else [text]


def _from_dict(value: dict[Any, Any], depth: int) -> Iterator[Sequence[object]]:
    """Yield the pictures of an object: one in several sizes, or a list for each size."""
    fields = {str(key).strip().lower(): unpack_cell(part) for key, part in value.items()}
    lists = {key: part for key, part in fields.items() if isinstance(part, (list, tuple))}
    if lists and not any(isinstance(fields.get(key), (str, bytes, dict)) for key in ("bytes", *_FIELDS)):
        length = max(map(len, lists.values()))
        for n in range(min(length, _PICTURES_PER_ITEM + 1)):
            row = {key: part[n] for key, part in lists.items() if n < len(part)}
            if not all(map(_is_empty, row.values())):
                yield from _from_dict(row, depth + 1) if depth < _NESTING else ()
        return
    best = [fields[key] for key in ("bytes", *_FIELDS) if key in fields and not _is_empty(fields[key])]
    if best:
        yield [candidate for part in best for entry in _entries(part, depth + 1) for candidate in entry]
    elif any(not _is_empty(part) for part in fields.values()):
        addresses = [key for key in value if isinstance(key, str) and _ADDRESS.match(key.strip())]
        yield from ([address] for address in addresses)
        if not addresses:
            yield [value]


def _from_data_address(text: str) -> _Picture:
    head, _, body = text.partition(",")
    if ";base64" not in head.lower():
        return _Picture(reason=NO_PICTURE, detail="a data: address without base64")
    digits = "".join(unquote(body).split()).rstrip("=").translate(_URL_SAFE)
    try:
        return _keep_bytes(base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True))
    except (binascii.Error, ValueError):
        return _Picture(reason=NO_PICTURE, detail="a data: address that is not base64")


def _keep_bytes(data: bytes) -> _Picture:
    """Write a picture that the table itself holds into a temporary folder, by its content."""
    try:
        kind = image_kind(data)
    except ImageRefusedError as error:
        return _Picture(reason=NO_PICTURE, detail=str(error))
    path = Path(_temporary_folder().name, f"{hashlib.sha256(data).hexdigest()}.{ENDINGS[kind]}")
    if not path.exists():
        path.write_bytes(data)
    return _Picture(str(path))


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return this process's folder of such pictures; it is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="mllmrec-pictures-")
