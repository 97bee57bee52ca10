"""Keep pictures under the hash of their content: those fetched by address, and those copied into a dataset.

    <sha256>.<ending>   the pictures, equal ones once
    index.jsonl         {"url", "file"}, a line added when its picture is on the disk
    failed.jsonl        {"url", "reason"} of the addresses that gave none when they were last tried

Both indices are of fetched pictures. Several datasets may share their folder. One process at a time adds to it; a kill
loses no picture.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from mllmrec.dataset.readers.reading import read_lines
from mllmrec.errors import StorageError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.images import ENDINGS, MOST_FILE_BYTES, ImageRefusedError, check_image, image_kind
from mllmrec.foundation.progress import Progress

FAILED = "failed.jsonl"
_INDEX = "index.jsonl"
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{3,4}")
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHER_ENDINGS = {"JPEG": ("jpeg", "jpe", "jfif")}
_REASONS = 3  # reasons that are listed, the commonest first


class PictureStore:
    """An open folder of pictures; several threads may add to it.

    Args:
        folder: an existing folder whose lock the caller holds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        self._index = folder / _INDEX
        self._failed = folder / FAILED

    def known(self) -> dict[str, Path]:
        """Return the picture of each address that was fetched and is still there."""
        files = {}
        for row in _rows(self._index):
            name = row.get("file")
            if isinstance(name, str) and _NAME.fullmatch(name) and _is_plain(self._folder / name):
                files[str(row.get("url"))] = self._folder / name
        return files

    def add(self, url: str, data: bytes) -> Path:
        """Keep the picture of an address.

        Args:
            url: the address.
            data: the bytes that it gave.

        Returns:
            The file that holds them.

        Raises:
            ImageRefusedError: it is no usable picture.
            StorageError: the disk refuses.
        """
        name = f"{digests.hash_bytes(data)}.{ENDINGS[check_image(data)]}"
        file = self._folder / name
        with self._writing:
            if not _is_plain(file):
                with storage.atomic(file) as temporary:
                    temporary.write_bytes(data)
            self._note(url, name)
        return file

    def _note(self, url: str, name: str) -> None:
        with storage.storage_errors("write", self._index), _open_to_append(self._index) as index:
            if index.tell() and not _ends_whole(index):
                index.write(b"\n")  # a kill cut the last line
            index.write(_line({"url": url, "file": name}))

    def report(self, tried: Collection[str], failed: Mapping[str, str]) -> None:
        """Replace the lines of failed.jsonl for the addresses that were tried.

        Args:
            tried: every address of this download.
            failed: the reason of each that gave no picture.

        Raises:
            StorageError: the disk refuses.
        """
        others = {str(row.get("url")): str(row.get("reason")) for row in _rows(self._failed)}
        remaining = {url: reason for url, reason in others.items() if url not in tried} | dict(failed)
        if remaining or self._failed.exists():
            rows = [_line({"url": url, "reason": reason}).decode() for url, reason in remaining.items()]
            storage.write_text(self._failed, "".join(rows))


@contextmanager
def open_store(folder: Path, progress: Progress) -> Iterator[PictureStore]:
    """Yield a folder's store, created where it is missing; wait while another process adds to it.

    Args:
        folder: the folder.
        progress: called once where this process has to wait.

    Raises:
        StorageError: it cannot be written to, or a link stands where its lock or its index belongs.
    """
    storage.make_folder(folder, private=True)
    with ExitStack() as held:
        try:
            held.enter_context(storage.open_lock(folder / ".lock", wait=False))
        except BlockingIOError:
            progress("wait for another download into this folder", 0, None)
            held.enter_context(storage.open_lock(folder / ".lock"))
        yield PictureStore(folder)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # Rejected lines are those that a kill cut: their pictures are fetched again.
    return (row for _, row in read_lines(path, [])) if _is_plain(path) else iter(())


def _is_plain(path: Path) -> bool:
    """Return whether a file is there that is no link: a link leads out of the folder."""
    return path.is_file() and not path.is_symlink()


def _open_to_append(path: Path) -> BinaryIO:
    descriptor = os.open(path, _APPEND, 0o666)
    found = os.fstat(descriptor)
    if found.st_nlink > 1 or not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise StorageError(f"{path} is a hard link to another file, or no regular file; remove it")
    return open(descriptor, "ab+")  # noqa: PTH123 - a descriptor, which the caller closes


def _line(row: Mapping[str, str]) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _ends_whole(file: BinaryIO) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"


@dataclass(slots=True)
class _LeftOut:
    """The files that were not copied, by reason."""

    missing: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def warnings(self) -> list[str]:
        lines = [f"{self.missing} image files are missing"] if self.missing else []
        if self.unreadable:
            lines.append(f"{self.unreadable.total()} image files cannot be read ({_commonest(self.unreadable)})")
        if self.refused:
            lines.append(f"{self.refused.total()} image files are no usable pictures ({_commonest(self.refused)})")
        return lines


def _commonest(reasons: Counter[str]) -> str:
    listed = [f"{count} x {reason}" for reason, count in reasons.most_common(_REASONS)]
    return "; ".join([*listed, *(["..."] if len(reasons) > _REASONS else [])])


def copy_pictures(lists: pl.Series, folder: Path, progress: Progress) -> tuple[pl.Series, list[str]]:
    """Copy each item's pictures; equal ones are kept once.

    Args:
        lists: [I] lists of local files.
        folder: where the pictures go; it is created with the first.
        progress: called with the number of items that are done.

    Returns:
        [I] lists of names as `images/<sha256>.<ending>`, and one line for each kind of file that was left out.

    Raises:
        StorageError: the folder cannot be written to.
    """
    rows, left_out, copied = lists.to_list(), _LeftOut(), []
    for n, row in enumerate(rows, start=1):
        names = [_copy(Path(file), folder, left_out) for file in row or ()]
        copied.append([f"images/{name}" for name in names if name])
        if n % 100 == 0 or n == len(rows):
            progress("copy images", n, len(rows))
    return pl.Series("images", copied, dtype=pl.List(pl.String)), left_out.warnings


def _copy(file: Path, folder: Path, left_out: _LeftOut) -> str:
    """Return the name of the copy, or nothing if the file is left out."""
    try:
        with storage.open_regular(file) as source:
            data = source.read(MOST_FILE_BYTES + 1)
        name = f"{digests.hash_bytes(data)}.{_ending(file, image_kind(data))}"
    except (FileNotFoundError, NotADirectoryError):
        left_out.missing += 1
        return ""
    except OSError as error:
        left_out.unreadable[error.strerror or str(error)] += 1
        return ""
    except ImageRefusedError as error:
        left_out.refused[str(error)] += 1
        return ""
    with storage.storage_errors("write", folder / name):
        folder.mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    return name


def _ending(file: Path, kind: str) -> str:
    """Return the ending that a kind of picture has: the file's own where that is one of them."""
    ending = file.suffix.lower()[1:]
    return ending if ending in _OTHER_ENDINGS.get(kind, ()) else ENDINGS[kind]
