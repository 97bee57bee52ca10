"""Keep fetched pictures in a folder: each under the hash of its content, and an index of addresses.

    <sha256>.<ending>   the pictures, equal ones once
    index.jsonl         {"url", "file"}, a line added when its picture is on the disk
    failed.jsonl        {"url", "reason"} of the addresses that gave none when they were last tried

Several datasets may share a folder. One process at a time adds to it; a kill loses no picture.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mllmrec.dataset.readers.reading import read_lines
from mllmrec.errors import StorageError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.images import ENDINGS, check_image
from mllmrec.foundation.progress import Progress

FAILED = "failed.jsonl"
_INDEX = "index.jsonl"
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{3,4}")
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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
