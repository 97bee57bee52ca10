"""Find an item's pictures in whatever a shop's table holds: paths, addresses, lists, structs, bytes.

| form | example |
|---|---|
| path in the shop's folder | `images/p1.jpg`, `images\\p1.jpg`, `p1.jpg` (in images/) |
| address | `https://img.example.org/p1.jpg`, `//img.example.org/p1.jpg` |
| several in one text | `a.jpg\\|b.jpg`, `['a.jpg', 'b.jpg']`, `["a.jpg"]` |
| several sizes of one | `{"hi_res": ..., "large": ...}`, alone, in a list, or as a dict of lists |
| the picture itself | bytes, `{"bytes": ..., "path": ...}`, `data:image/png;base64,...`, base64 |

An item without any has the files `images/ID.jpg`, `.png` and so on. Links are followed, and must end inside the
folder. Whatever is not taken is counted with its reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import unquote

from mllmrec.dataset.readers.picture_cells import ADDRESS, FILE_ENDINGS, PICTURES_PER_ITEM, split_cell
from mllmrec.foundation.images import ENDINGS, ImageRefusedError, image_kind

_URL_SAFE = str.maketrans("-_", "+/")
_PATH_CHARACTERS = 1000
_BASE64_HEADS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")  # of jpg, png, gif and webp
_ADDRESS_CHARACTERS = 4000

OUTSIDE = "image paths lead out of the source folder and are ignored"
MISSING = "image files are missing"
NO_TEXT = "image values are neither text nor a picture (a number, true or false, a date) and are ignored"
BAD_CHARACTERS = "image paths or addresses hold a character that none can have and are ignored"
TOO_LONG = "image paths or addresses are too long and are ignored"
NO_ADDRESS = "image addresses are neither http nor https and are ignored"
NO_PICTURE = "pictures inside the table cannot be used and are ignored"
TOO_MANY = f"items have more than {PICTURES_PER_ITEM} pictures; the rest are ignored"
NO_FIELD = "image objects name no picture that can be found and are ignored"
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
        self._root = Path(os.path.realpath(folder))
        self._refused: dict[str, _Count] = {}
        self._other_case = 0
        self._listings: dict[str, dict[str, list[str]]] = {}  # folder -> folded name -> names

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
        """Yield one line for each reason: how many values were not taken or were guessed, and an example."""
        for reason, count in self._refused.items():
            detail = f": {count.detail}" if count.detail else ""
            yield f"{count.number} {reason} (for example, item {count.example[:60]!r}{detail})"

        if self._other_case:
            yield f"{self._other_case} image files were found under a name in other letters (capital or small)"

    def _refuse(self, refused: _Picture, item: str) -> None:
        self._refused.setdefault(refused.reason, _Count(0, item, refused.detail)).number += 1

    def _take(self, value: object, item: str) -> tuple[list[str], list[str]]:
        files: dict[str, None] = {}
        addresses: dict[str, None] = {}
        for number, entry in enumerate(split_cell(value)):
            if number == PICTURES_PER_ITEM:
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
            return _Picture(reason=NO_FIELD if isinstance(value, (dict, list, tuple, set)) else NO_TEXT)
        text = value.strip()
        if text[:5].lower() == "data:":
            return _from_data_address(text)
        if text.startswith(_BASE64_HEADS) and len(text) > _PATH_CHARACTERS // 4:
            return _from_data_address(f"data:;base64,{text}")
        if not text.isprintable() and (not _is_text(text) or any(ord(c) < 32 or ord(c) == 127 for c in text)):
            return _Picture(reason=BAD_CHARACTERS)
        if ADDRESS.match(text) and not text.startswith(str(self._root)):
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
            picture = self._inside(candidate)
            if picture.reason == MISSING:
                picture = self._in_other_case(candidate)
            if not picture.reason:
                return picture
            reasons.append(picture.reason)
        return _Picture(reason=next((reason for reason in (reasons[0], *reasons) if reason != MISSING), MISSING))

    def _inside(self, name: str) -> _Picture:
        """Return a file's real path, where that lies in the folder once every link is followed."""
        try:
            path = Path(os.path.realpath(self._root / name))
            if path == self._root or not path.is_relative_to(self._root):
                return _Picture(reason=OUTSIDE)
            if not path.is_file():
                return _Picture(reason=MISSING)
            return self._named(path) if os.access(path, os.R_OK) else _Picture(reason=UNREADABLE)
        except (OSError, ValueError):
            return _Picture(reason=UNREADABLE)

    def _in_other_case(self, name: str) -> _Picture:
        """Return the one file of a folder that has the name in other letters: Windows takes both for the same."""
        folder, _, file = name.rpartition("/")
        if ".." in name.split("/") or Path(name).is_absolute():
            return _Picture(reason=MISSING)
        if folder not in self._listings:
            self._listings[folder] = _list_folder(self._root / folder)
        names = self._listings[folder].get(file.casefold(), ())
        if len(names) != 1:
            return _Picture(reason=MISSING)
        picture = self._inside(f"{folder}/{names[0]}" if folder else names[0])
        self._other_case += not picture.reason
        return picture

    def _named(self, path: Path) -> _Picture:
        """Return a path as a table can keep it, which is UTF-8 text."""
        if not _is_text(str(path.relative_to(self._root))):
            return _Picture(reason=BAD_CHARACTERS)
        return _Picture(str(self._text_root / path.relative_to(self._root)))

    @cached_property
    def _text_root(self) -> Path:
        """Return the folder, or a link to it where its own path is not UTF-8."""
        if _is_text(str(self._root)):
            return self._root
        link = Path(_temporary_folder().name, hashlib.sha256(os.fsencode(self._root)).hexdigest())
        if not link.is_symlink():
            link.symlink_to(self._root)
        return link

    def _by_id(self, item: str) -> str | None:
        name = self._named_by_id.get(item)
        if name is None:
            return None
        picture = self._inside(f"images/{name}")
        if picture.reason:
            self._refuse(picture, item)
        return picture.value or None

    @cached_property
    def _named_by_id(self) -> dict[str, str]:
        """Return the file of images/ that each id has; `.jpg` goes before `.png`, small letters before capitals."""
        ranked: dict[str, tuple[int, str]] = {}
        names = [name for names in _list_folder(self._root / "images").values() for name in names]
        for name in sorted(names, reverse=True):
            stem, _, ending = name.rpartition(".")
            if f".{ending.lower()}" in FILE_ENDINGS:
                rank = FILE_ENDINGS.index(f".{ending.lower()}")
                if stem not in ranked or rank <= ranked[stem][0]:
                    ranked[stem] = rank, name
        return {stem: name for stem, (_, name) in ranked.items()}


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
    relative = slashed.lstrip("/")
    inside = () if ".." in relative.split("/") else (relative, f"images/{relative}")
    yield from dict.fromkeys((name, slashed, unquote(slashed), *inside))


def _list_folder(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their folded form; none if there is no such folder."""
    names: dict[str, list[str]] = {}
    try:
        for path in folder.iterdir():
            names.setdefault(path.name.casefold(), []).append(path.name)
    except (OSError, ValueError):
        return {}
    return names


def _is_text(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)


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
