"""One SQLite file for everything that was ever generated: nothing is asked twice, nothing paid for is lost.

A row's key is a hash of what was asked and of whom: engine fingerprint, texts, image bytes. No clock, path
or row order enters it. Rows are committed batch by batch (WAL), and carry a checksum: a damaged row is a
miss, and is generated again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mllmrec.errors import MismatchError, StorageError
from mllmrec.reason.engine import Answer
from mllmrec.storage import make_folder

SCHEMA_VERSION = 1
_BUSY_SECONDS = 60
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # primary result codes; extended ones carry more above bit 8
_BATCH = 500  # keys a query, below SQLite's limit of host parameters


def default_path() -> Path:
    """`$MLLMREC_CACHE`, or generations.sqlite in the user's cache folder."""
    if named := os.environ.get("MLLMREC_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mllmrec" / "generations.sqlite"


def _checksum(key: str, answer: Answer) -> str:
    fields = "\x00".join((key, answer.text, answer.status, answer.reason))
    return hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()


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


class GenerationCache:
    """An open cache; several processes may share one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = 0
        self.misses = 0
        self.damaged = 0
        make_folder(path.parent)
        with _sqlite_errors(path):
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                raise StorageError(
                    f"{path} is not a usable cache ({error}); move it away, or name another with --cache"
                ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            connection.close()
            raise MismatchError(
                f"{self.path} has cache schema {version}, this version of mllmrec reads {SCHEMA_VERSION}; "
                "name another file with --cache"
            )
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, text TEXT NOT NULL, "
            "status TEXT NOT NULL, reason TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.commit()
        return connection

    def get(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that are there, by key; a row whose checksum fails counts as absent."""
        wanted = list(keys)
        found: dict[str, Answer] = {}
        with _sqlite_errors(self.path):
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                rows = self._connection.execute(
                    f"SELECT key, text, status, reason, checksum FROM generations WHERE key IN ({marks})",  # noqa: S608 - only question marks are put in
                    batch,
                )
                for key, text, status, reason, checksum in rows:
                    answer = Answer(text, status, reason)
                    if _checksum(key, answer) == checksum:
                        found[key] = answer
                    else:
                        self.damaged += 1
        self.hits += len(found)
        self.misses += len(wanted) - len(found)
        return found

    def put(self, answers: Mapping[str, Answer]) -> None:
        """Store answers in one transaction: all of them, or none."""
        rows = [(key, a.text, a.status, a.reason, _checksum(key, a)) for key, a in answers.items()]
        with _sqlite_errors(self.path), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def open_cache(path: Path | None = None) -> Iterator[GenerationCache]:
    """Open a cache, the user's own by default, and close it afterwards.

    Raises:
        StorageError: the file or its folder cannot be written, or is no cache.
        MismatchError: it has another schema version.
    """
    cache = GenerationCache(path or default_path())
    try:
        yield cache
    finally:
        cache.close()


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"cannot use the generation cache {path}: {error}; free some space, or name another with --cache"
        ) from error
