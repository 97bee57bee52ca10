"""A folder of fetched pictures: each under the hash of its content, and which address gave which.

    <sha256>.<ending>   the pictures, equal ones once
    index.jsonl         {"url", "file"}, a line added when its picture is on the disk
    failed.jsonl        {"url", "reason"} of the addresses that gave none when they were last tried

Several datasets may share a folder. One process at a time adds to it; a kill loses no picture.
"""

from __future__ import annotations

import fcntl
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllmrec.dataset.readers.reading import read_lines
from mllmrec.foundation import storage
from mllmrec.foundation.images import check_image
from mllmrec.foundation.progress import Progress

FAILED = "failed.jsonl"
_INDEX = "index.jsonl"
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{3,4}")
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}


class PictureStore:
    """An open folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        self._index = folder / _INDEX
        self._failed = folder / FAILED

    def known(self) -> dict[str, Path]:
        """The picture of each address that was fetched and is still there."""
        found = {}
        for row in _rows(self._index):
            name = row.get("file")
            if isinstance(name, str) and _NAME.fullmatch(name) and (self._folder / name).is_file():
                found[str(row.get("url"))] = self._folder / name
        return found

    def add(self, url: str, data: bytes) -> Path:
        """Keep what an address gave.

        Raises:
            ImageRefusedError: it is no usable picture.
            StorageError: the disk refuses.
        """
        name = f"{storage.hash_bytes(data)}.{_ENDINGS[check_image(data)]}"
        file = self._folder / name
        with self._writing:
            if not file.is_file():
                with storage.atomic(file) as temporary:
                    temporary.write_bytes(data)
            self._note(url, name)
        return file

    def _note(self, url: str, name: str) -> None:
        with storage.storage_errors("write", self._index), self._index.open("ab+") as index:
            if index.tell() and not _ends_whole(index):
                index.write(b"\n")  # a kill cut the last line
            index.write(_line({"url": url, "file": name}))

    def report(self, tried: Collection[str], failed: Mapping[str, str]) -> None:
        """Replace what failed.jsonl says of the addresses that were tried."""
        others = {str(row.get("url")): str(row.get("reason")) for row in _rows(self._failed)}
        left = {url: reason for url, reason in others.items() if url not in tried} | dict(failed)
        if left or self._failed.exists():
            rows = [_line({"url": url, "reason": reason}).decode() for url, reason in left.items()]
            storage.write_text(self._failed, "".join(rows))


@contextmanager
def open_store(folder: Path, progress: Progress) -> Iterator[PictureStore]:
    """The folder, made where it is not there; waits while another process adds to it.

    Raises:
        StorageError: it cannot be written to.
    """
    storage.make_folder(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("wait for another download into this folder", 0, None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield PictureStore(folder)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # Rejected lines are those that a kill cut: their pictures are fetched again.
    return (row for _, row in read_lines(path, [])) if path.is_file() else iter(())


def _line(row: Mapping[str, str]) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _ends_whole(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")
