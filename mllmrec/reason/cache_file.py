"""The cache's file: opened by several processes at once, migrated from older schemas, put aside when damaged."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from mllmrec.errors import MismatchError, StorageError
from mllmrec.foundation.storage import make_folder

_BUSY_SECONDS = 60
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # primary result codes; extended ones carry more above bit 8
_HEADER = b"SQLite format 3\x00"
_CHECKED_BYTES = 256 << 20  # a larger file is not read through at every start; what is damaged in it shows when read
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
    make_folder(path.parent)
    try:
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
        _log.warning(
            "the generation cache %s is damaged (%s); it is kept as %s, and a new one is begun", path, error, aside.name
        )
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version <= SCHEMA_VERSION:
            raise MismatchError(
                f"{path} has cache schema {version}, this version of mllmrec reads up to {SCHEMA_VERSION}; "
                "update mllmrec, or name another file with --cache"
            )
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


def _check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(str(found).splitlines()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    """The steps that are missing, in one transaction; another process may be at it, so the version is read again."""
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
