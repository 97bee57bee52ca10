"""Folders in an object store, by address such as s3://bucket/run: brought here, and taken back.

An object is there whole or not at all, which is all that a store promises. So a folder is taken back file by file, and
the file that seals it last: a reader finds the old seal, whose hashes then do not fit, or the new one.

file:///place is a folder of this machine, or of one that is mounted here, and used as it is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mllmrec.errors import ConfigError, InputError, StorageError, first_line
from mllmrec.foundation import storage
from mllmrec.foundation.folders import is_bare_name

_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.*)")  # Path() makes one slash of two
_PROMPT = "such as s3://bucket/folder"

Push = Callable[[Iterable[Path]], None]


def parse_address(place: Path | str) -> str | None:
    """Return the address of a folder in a store; None for a folder of this machine."""
    found = _ADDRESS.fullmatch(str(place))
    return None if not found or found[1] == "file" else f"{found[1]}://{found[2].rstrip('/')}"


def local_path(place: Path | str) -> Path:
    """Return a folder of this machine, which may be named by file:///."""
    found = _ADDRESS.fullmatch(str(place))
    return Path("/" + found[2]) if found and found[1] == "file" else Path(place)


@contextmanager
def fetched(place: Path | str) -> Iterator[Path]:
    """Yield a folder of this machine with the files of a place; what is written to it is lost.

    Raises:
        ConfigError: no library here reads such an address.
        InputError: there is nothing, or a name leads out of the folder.
        StorageError: the store refuses.
    """
    address = parse_address(place)
    if address is None:
        yield local_path(place)
        return
    with tempfile.TemporaryDirectory(prefix="mllmrec-") as folder:
        if not _Store(address).fetch(Path(folder)):
            raise InputError(f"{address} is empty or missing; wanted a folder of files, {_PROMPT}")
        yield Path(folder)


@contextmanager
def mirrored(place: Path | str) -> Iterator[tuple[Path, Push]]:
    """Yield a folder of this machine with the files of a place, and a function that takes files of it back.

    Raises:
        ConfigError: no library here reads such an address.
        InputError: a name leads out of the folder.
        StorageError: the store refuses.
    """
    address = parse_address(place)
    if address is None:
        yield local_path(place), lambda _: None
        return
    store = _Store(address)
    with tempfile.TemporaryDirectory(prefix="mllmrec-") as folder:
        store.fetch(Path(folder))
        yield Path(folder), lambda files: store.push(Path(folder), files)


class _Store:
    """A folder in an object store."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            import fsspec

            found: tuple[Any, str] = fsspec.core.url_to_fs(address, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            scheme = address.partition("://")[0]
            raise ConfigError(
                f"{address} cannot be opened: {first_line(error)}; install what reads {scheme}://, such as s3fs"
            ) from error
        self._files, self._root = found[0], found[1].rstrip("/")

    def fetch(self, folder: Path) -> int:
        """Bring every file into an empty folder; return how many there are."""
        with self._errors("read"):
            names = self._files.find(self._root)
        for name in names:
            inside = PurePosixPath(str(name)).relative_to(PurePosixPath(self._root))
            if not all(is_bare_name(part) for part in inside.parts):
                raise InputError(f"{self._address} holds {str(inside)[:200]!r}, a name that no run or dataset has")
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._errors("read"), storage.atomic(target) as temporary:
                self._files.get_file(name, str(temporary))
        return len(names)

    def push(self, folder: Path, files: Iterable[Path]) -> None:
        """Take files back, in this order."""
        for file in files:
            with self._errors("write"):
                self._files.put_file(str(file), f"{self._root}/{file.relative_to(folder).as_posix()}")

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Turn what a store's library raises into one line."""
        try:
            yield
        except (InputError, StorageError):
            raise
        except Exception as error:  # each store has errors of its own
            raise StorageError(f"cannot {action} {self._address}: {first_line(error)}") from error
