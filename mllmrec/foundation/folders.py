"""Whole folders or none, and what a killed writer left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmrec.foundation import storage


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `path`, on any error it is removed.

    `path` must not exist, or be an empty folder.

    Raises:
        StorageError: the disk is full, the parent is read-only, or the like.
    """
    temporary = path.with_name(storage.temporary_name())
    with storage.storage_errors("write", path):
        storage.make_parents(path.parent)
        temporary.mkdir()
        try:
            yield temporary
            sync_tree(temporary)
            temporary.replace(path)
            with storage.open_folder(path.parent) as folder:
                os.fsync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder to the disk."""
    for place, _, names, descriptor in os.fwalk(folder):
        for name in names:
            with storage.storage_errors("write", Path(place) / name):
                storage.flush(name, descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed writer left in a folder; the caller holds the folder's lock."""
    with storage.open_folder(folder) as descriptor:
        with os.scandir(descriptor) as entries:
            left = [entry for entry in entries if _is_temporary(entry.name)]
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(folder / entry.name, ignore_errors=True)
            else:
                storage.remove(entry.name, descriptor)


def _is_temporary(name: str) -> bool:
    return name.startswith(storage.PREFIX) and name.endswith(storage.SUFFIX)
