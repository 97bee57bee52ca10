"""Write whole files or none: atomic writes, locks, and disk errors in one line.

A file is written under a random temporary name in its own folder, flushed to the disk, and renamed over the old one: a
kill leaves the old file or none. O_EXCL and O_NOFOLLOW refuse planted links. A folder of mode 0700 keeps files at 0600.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
import stat
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError

from mllmrec.errors import InputError, StorageError, first_line

SLICE_ROWS = 1 << 18  # of a table that are written at once
MAX_JSON_BYTES = 64 << 20  # of run.json, stage.json, manifest.json and the like
PREFIX, SUFFIX = ".mllmrec-", ".tmp"  # around the random part of a temporary name
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # no O_TRUNC: the file may be planted
_OS_ERROR = re.compile(r"(?:code: |os error )(\d+)")  # as Rust prints it
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # as NumPy prints it
_REASONS = {
    errno.ENOSPC: "no space left on the device; free some, or choose another folder",
    errno.EFBIG: "a file may not grow so large here; raise the limit, or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.ELOOP: "it is a symbolic link, and links are not followed here; remove it",
}


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if (reason := _reason(error)) is None:
            raise
        raise StorageError(f"cannot {action} {path}: {reason}") from error


def _reason(error: Exception) -> str | None:
    """Return what the system says, and what to do; None for an error that is not the system's."""
    number = getattr(error, "errno", None)
    if number is None and (printed := _OS_ERROR.search(str(error))):
        number = int(printed[1])
    if number is not None:
        return _REASONS.get(number, os.strerror(number))
    if _CUT_SHORT.search(str(error)):
        return _REASONS[errno.ENOSPC]
    return str(error) if isinstance(error, OSError) else None


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of a folder, through which names in it are opened, renamed and removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _file_mode(folder: int) -> int:
    """Return the mode of a new file: closed to others if its folder is; the umask still applies."""
    return 0o600 if not os.fstat(folder).st_mode & 0o077 else 0o666


def temporary_name() -> str:
    """Return a random name, so that nobody can plant a file there."""
    return f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file; on success it becomes `path`, on any error it is removed.

    Raises:
        StorageError: the disk is full, the folder is read-only, or the like; the old file stays.
    """
    name = temporary_name()
    with storage_errors("write", path):
        make_parents(path.parent)
        with open_folder(path.parent) as folder:
            os.close(os.open(name, _CREATE, _file_mode(folder), dir_fd=folder))
            try:
                yield path.parent / name
                flush(name, folder)
                os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)  # the rename is durable only once the folder is
            except BaseException:
                remove(name, folder)
                raise


def flush(name: str, folder: int) -> None:
    """Flush a file to the disk; a link or a device in its place is refused."""
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(name: str, folder: int) -> None:
    """Remove a file or a link from an open folder, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def open_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file; it is created if it is missing, and never truncated.

    Args:
        path: the lock file, in an existing folder; a symbolic link is refused.
        wait: wait for another process to let go of the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is off.
        StorageError: the file cannot be opened, or is a link, a pipe or a device.
    """
    with storage_errors("lock", path), open_folder(path.parent) as folder:
        lock = os.open(path.name, _LOCK, _file_mode(folder), dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise StorageError(f"cannot lock {path}: it is not a regular file; remove it")
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def make_parents(folder: Path) -> None:
    """Create a folder and its parents; new ones are closed to other users if the nearest existing one is."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_parents(folder.parent)
    closed = folder.parent.stat().st_uid == os.getuid() and not folder.parent.stat().st_mode & 0o077
    folder.mkdir(mode=0o700 if closed else 0o777, exist_ok=True)


def make_folder(path: Path, *, private: bool = False) -> Path:
    """Create `path` and check that it is writable.

    Args:
        path: the folder; its parents are created too.
        private: close a folder that is created here to other users (mode 0700); an old one keeps its mode.

    Raises:
        StorageError: the folder cannot be created or written to.
    """
    with storage_errors("write to", path):
        if private and not path.is_dir():
            make_parents(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
        make_parents(path)
        with tempfile.TemporaryFile(dir=path):  # nobody else's, whoever tries the folder at the same moment
            pass
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; a lone surrogate is written as an escape, \\udXXX."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; keys keep their order, NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def nulled(value: Any) -> Any:
    """Return a JSON-like value with null in the place of NaN and infinity, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {key: nulled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nulled(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(
    path: Path, table: pl.DataFrame | Iterable[pl.DataFrame], *, notes: Mapping[str, str] | None = None
) -> None:
    """Write parquet atomically, a quarter of a million rows at a time: so a large table has no copy beside it.

    Args:
        path: the file.
        table: its content, or at least one slice of it; a slice is a group of rows in the file.
        notes: key-value metadata of the file.
    """
    if isinstance(table, pl.DataFrame):
        table = table.iter_slices(SLICE_ROWS) if table.height else [table]
    slices = iter(table)
    first = next(slices)
    schema = first.clear().to_arrow().schema
    schema = schema.with_metadata({key: str(value) for key, value in notes.items()}) if notes else schema
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for rows in chain([first], slices):
            writer.write_table(rows.to_arrow().replace_schema_metadata(schema.metadata))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy atomically, C-contiguous, without pickle."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def read_json(path: Path) -> Any:
    """Read JSON from a regular file of bounded size.

    Raises:
        InputError: the file is missing, too large, nests too deeply, or is not JSON.
    """
    data = _read_bytes(path, MAX_JSON_BYTES)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON has")
    return number


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise InputError(f"{path} has more than {most:,} bytes, too many for such a file")
    return data


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read; a pipe or a device in its place is refused at once, so nothing hangs.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield file


def read_array(path: Path) -> NDArray[Any]:
    """Read one .npy array, memory-mapped; object arrays (pickle) are refused.

    Raises:
        InputError: the file is missing, truncated, or holds Python objects.
    """
    try:
        with open_regular(path) as file:
            archive = file.read(2) == b"PK"
        if archive:
            raise InputError(f"{path} is an archive of arrays; wanted one .npy array")
        with np.errstate(over="ignore"):  # a shape of too many numbers is refused, without a warning before
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise InputError(f"{path} is not a plain .npy array: {first_line(error)}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path} holds {array.dtype}; wanted numbers")
    return array
