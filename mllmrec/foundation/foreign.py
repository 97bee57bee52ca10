"""Folders that somebody else may have made: what lies in them is checked before anything is read.

Nobody can tell a folder of one's own from one that was unpacked from an archive. So every run and every dataset is
opened through `open_foreign`, whoever made it; the checks are cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from mllmrec.errors import InputError
from mllmrec.foundation.storage import MAX_JSON_BYTES

MAX_DEPTH = 6  # folders below the one that is opened
_CHECKED_BYTES = 64 << 20  # smaller files are not looked at for holes
_MIN_STORED = 1 / 16  # of a file's bytes, on the disk; a file system's own compression saves less on our files
_UNSIZED = ("images",)  # pictures are many, and each is measured when it is opened

Checks = Callable[[Path], Iterable[str]]


def open_foreign(folder: Path, checks: Checks) -> None:
    """Refuse a folder with links, special files, files of impossible size, or content of another format.

    Args:
        folder: a run or a dataset, from an untrusted source.
        checks: yields one line for each thing that is wrong with the content of the folder's small files.

    Raises:
        InputError: something is wrong; the line says what.
    """
    for problem in find_problems(folder, checks):
        raise InputError(f"{folder} is refused: {problem}")


def find_problems(folder: Path, checks: Checks) -> Iterator[str]:
    """Yield one line for each reason to refuse a folder; links and special files come first."""
    unsafe = list(_walk(folder, "", 0))
    return chain(unsafe, () if unsafe else checks(folder))


def is_bare_name(name: str) -> bool:
    """Tell whether a name stands for a file in the folder that holds it, and nowhere else."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"} and not name.startswith(".")


def _walk(folder: Path, inside: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{inside or '.'} lies more than {MAX_DEPTH} folders deep"
        return
    try:
        entries = os.scandir(folder)
    except OSError as error:
        yield f"{inside or '.'} cannot be read ({error.strerror})"
        return
    with entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                yield f"{name} is a symbolic link, which may lead out of the folder; replace it by what it stands for"
            elif entry.is_dir():
                yield from _walk(Path(entry.path), name, depth + 1)
            elif not entry.is_file():
                yield f"{name} is neither a file nor a folder"
            elif inside not in _UNSIZED:
                yield from _measure(entry, name)


def _measure(entry: os.DirEntry[str], name: str) -> Iterator[str]:
    found = entry.stat(follow_symlinks=False)
    if name.endswith(".json") and found.st_size > MAX_JSON_BYTES:
        yield f"{name} has {found.st_size:,} bytes; a JSON file here has at most {MAX_JSON_BYTES:,}"
    if found.st_size > _CHECKED_BYTES and found.st_blocks * 512 < _MIN_STORED * found.st_size:
        yield f"{name} claims {found.st_size:,} bytes, of which {found.st_blocks * 512:,} are on the disk"
