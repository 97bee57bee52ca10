"""The cache's file: opened by several processes at once, migrated from older schemas, put aside when damaged.

The file holds profiles of customers, so it is closed to other users (mode 0600). A file that has other tables, views or
triggers than a cache, or rows of other types, is refused.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mllmrec.errors import MismatchError, StorageError
from mllmrec.foundation.storage import make_folder, storage_errors

_BUSY_SECONDS = 60
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # primary result codes; extended ones carry more above bit 8
_HEADER = b"SQLite format 3\x00"
_CHECKED_BYTES = 256 << 20  # a larger file is not read through at every start; what is damaged in it shows when read
_MOST_ROW_BYTES = 64 << 20  # of one answer; a larger one was planted
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_COMPANIONS = ("-wal", "-shm", "-journal")
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names a file to remove; ours never does
_log = logging.getLogger("mllmrec")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, text TEXT NOT NULL, "
        "status TEXT NOT NULL, reason TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
    )


def _note_engines(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE generations ADD COLUMN ask TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE generations ADD COLUMN engine TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE generations ADD COLUMN seconds REAL NOT NULL DEFAULT 0")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create, _note_engines)
SCHEMA_VERSION = len(MIGRATIONS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at the current schema.

    A file that was a database and is damaged is renamed, with a warning; what is no database at all is refused, for
    it may be somebody's.

    Raises:
        StorageError: the file or its folder cannot be written, or is no cache.
        MismatchError: a newer version of mllmrec wrote it.
    """
    try:
        make_folder(path.parent, private=True)
        _close_to_others(path)
        return _open(path)
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"cannot use the generation cache {path}: {error}; free some space, or name another with --cache"
        ) from error
    except sqlite3.DatabaseError as error:
        if not _was_database(path):
            raise StorageError(
                f"{path} is not a usable cache ({error}); move it away, or name another with --cache"
            ) from error
        aside = _put_aside(path)
        _close_to_others(path)
        _log.warning(
            "the generation cache %s is damaged (%s); it is kept as %s, and a new one is begun", path, error, aside.name
        )
        return _open(path)


def _close_to_others(path: Path) -> None:
    """Create the file, or take an old one's permissions for other users away; links, pipes and devices are refused."""
    with storage_errors("use the generation cache", path):
        _check_companions(path)
        descriptor = os.open(path, _OPEN, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StorageError(f"{path} is not a usable cache (no regular file); name another with --cache")
            if found.st_nlink > 1:
                raise StorageError(f"{path} is a hard link to another file; copy it, or name another with --cache")
            if found.st_uid == os.getuid() and found.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)


def _check_companions(path: Path) -> None:
    """Refuse files beside the cache through which SQLite would write to, or remove, files elsewhere."""
    for ending in _COMPANIONS:
        file = path.with_name(path.name + ending)
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise StorageError(f"{file} is no regular file; remove it, or name another cache with --cache")
        with suppress(FileNotFoundError):  # another process may close the cache at this moment
            if file.stat().st_nlink > 1:
                raise StorageError(f"{file} is a hard link to another file; remove it, or name another with --cache")
        if ending == "-journal" and file.exists():
            with file.open("rb") as journal:
                journal.seek(-min(len(_SUPER_JOURNAL), file.stat().st_size), os.SEEK_END)
                if journal.read() == _SUPER_JOURNAL:
                    raise StorageError(f"{file} names a file of another database; remove it, or name another cache")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)  # the cache has a lock
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_ROW_BYTES)
    connection.text_factory = _decoded  # a row that is no UTF-8 then has another checksum, as any damaged row
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version <= SCHEMA_VERSION:
            raise MismatchError(
                f"{path} has cache schema {version}, this version of mllmrec reads up to {SCHEMA_VERSION}; "
                "update mllmrec, or name another file with --cache"
            )
        _check_tables(connection, path)
        if version and path.stat().st_size <= _CHECKED_BYTES:
            _check(connection)
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is somebody's, or that was made to look like a cache.

    Raises:
        StorageError: its tables, views, indices and triggers are not those of a cache of any version.
    """
    schema = _schema(connection)
    if schema not in _known_schemas():
        names = ", ".join(sorted(str(name) for _, name, _ in schema))
        raise StorageError(
            f"{path} is not a generation cache (its tables are {names:.120}); move it away, or name another "
            "with --cache"
        )


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall())


def _known_schemas() -> list[set[tuple[str, str, str]]]:
    """Return the schema of each version, from an empty file on."""
    connection = sqlite3.connect(":memory:")
    schemas = [_schema(connection)]
    for step in MIGRATIONS:
        step(connection)
        schemas.append(_schema(connection))
    connection.close()
    return schemas


def _check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError((str(found).splitlines() or ["damaged"])[0])


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing steps in one transaction; another process may do so too, so the version is read again."""
    connection.isolation_level = None
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.isolation_level = "DEFERRED"


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL, once; SQLite's own busy timeout does not cover two processes that both try."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _was_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_HEADER)) == _HEADER
    except OSError:
        return False


def _put_aside(path: Path) -> Path:
    """Rename the file, and the journal that belongs to it, to the first free name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        journal = path.with_name(path.name + suffix)
        if journal.exists():
            journal.rename(aside.with_name(aside.name + suffix))
    return aside
