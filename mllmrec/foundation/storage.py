"""Files that are whole or not there: atomic writes, content hashes, and disk errors in one line.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed over the old
one; a kill leaves the old file or none. The temporary name is fixed, so what a kill left behind is
overwritten by the next attempt.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllmrec.errors import InputError, StorageError

_SAMPLES, _SAMPLE_BYTES = 32, 1 << 16
_REASONS = {
    errno.ENOSPC: "no space left on the device; free some, or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
}


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot {action} {path}: {reason}") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes `path`, on any error it is removed.

    Raises:
        StorageError: the disk is full, the folder is read-only, or the like; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `path`, which must not exist, on any error it is removed.

    One process at a time: the caller holds a lock.

    Raises:
        StorageError: the disk is full, the parent is read-only, or the like.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors("write", path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create `path` and prove that it can be written to, before any work is spent.

    Raises:
        StorageError: it cannot.
    """
    with storage_errors("write to", path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # nobody else's, whoever tries the folder at the same moment
            pass
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; keys keep their order, NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def nulled(value: Any) -> Any:
    """Return a JSON-like value with null where a float is NaN or infinite, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {key: nulled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nulled(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, table: pl.DataFrame, *, notes: Mapping[str, str] | None = None) -> None:
    """Write parquet atomically; `notes` become the file's key-value metadata."""
    arrow = table.to_arrow()
    if notes:
        arrow = arrow.replace_schema_metadata({key: str(value) for key, value in notes.items()})
    with atomic(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy atomically, C-contiguous, without pickle."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def read_array(path: Path) -> NDArray[Any]:
    """Read one .npy array, memory-mapped; object arrays (pickle) are refused.

    Raises:
        InputError: the file is missing, truncated, or holds Python objects.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a plain .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays; wanted one .npy array")
    return array


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def are_unchanged(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether a folder has all these files, each with its SHA-256."""
    files = {folder / name: sha for name, sha in hashes.items()}
    return all(file.is_file() and hash_file(file) == sha for file, sha in files.items())


def hash_samples(file: Path) -> str:
    """SHA-256 of a large file's size and of thirty-two samples over it, hexadecimal.

    It sees any fine-tuning of a model's weights; it does not see single bytes changed on purpose.
    """
    size = file.stat().st_size
    hasher = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        for n in range(_SAMPLES):
            opened.seek(n * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
            hasher.update(opened.read(_SAMPLE_BYTES))
    return hasher.hexdigest()


def hash_value(value: Any) -> str:
    """SHA-256 of a JSON-like value: equal values hash equal, whatever their keys' order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_bytes(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
