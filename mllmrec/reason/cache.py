"""One SQLite file for all generated texts: no request is sent twice, and no answer is lost.

A row's key is a hash of the request: engine fingerprint, texts, image bytes. No clock, path or row order enters it.
Rows are committed as answers come (WAL) and carry a checksum. A damaged row is a miss, and is generated again. A
damaged file is put aside under another name, never wiped.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.errors import StorageError
from mllmrec.foundation.folders import user_cache_folder
from mllmrec.reason import cache_file
from mllmrec.reason.engine import Answer

_BATCH = 500  # keys a query, below SQLite's limit of host parameters


def default_path() -> Path:
    """Return `$MLLMREC_CACHE`, or generations.sqlite in the user's cache folder."""
    if named := os.environ.get("MLLMREC_CACHE"):
        return Path(named)
    return user_cache_folder() / "generations.sqlite"


def _checksum(key: str, answer: Answer) -> str:
    fields = "\x00".join((key, answer.text, answer.status, answer.reason))
    return hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()


def _answer(key: Any, fields: Sequence[Any], checksum: str) -> Answer | None:
    """Return the answer of a row, or None if a field is no text or the checksum is another."""
    if not all(isinstance(field, str) for field in (key, *fields)):
        return None
    answer = Answer(*fields)
    return answer if _checksum(key, answer) == checksum else None


@dataclass(frozen=True, slots=True)
class Holding:
    """The cache's answers of one engine in one stage.

    Attributes:
        question: the stage's label.
        engine: the engine's fingerprint.
        rows: answers.
        unusable: those of them that hold no text that could be used.
        characters: of text, summed.
        seconds: that the answers took, summed.
    """

    question: str
    engine: str
    rows: int
    unusable: int
    characters: int
    seconds: float


class GenerationCache:
    """An open cache; several processes may share one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = 0
        self.misses = 0
        self.damaged = 0
        self._connection = cache_file.connect(path)
        self._writing = threading.Lock()  # engines report answers from threads of their own

    def get(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Return the answers that are there, by key; a row whose checksum fails counts as absent."""
        key_list = list(keys)
        found: dict[str, Answer] = {}
        with _sqlite_errors(self.path):
            for start in range(0, len(key_list), _BATCH):
                batch = key_list[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                rows = self._connection.execute(
                    f"SELECT key, text, status, reason, checksum FROM generations WHERE key IN ({marks})",  # noqa: S608 - only question marks are put in
                    batch,
                )
                for key, *fields, checksum in rows:
                    answer = _answer(key, fields, checksum)
                    if answer is not None:
                        found[key] = answer
                    else:
                        self.damaged += 1
        self.hits += len(found)
        self.misses += len(key_list) - len(found)
        return found

    def take_counts(self) -> dict[str, int]:
        """Return hits and misses since the last call."""
        taken = {"cache hits": self.hits, "cache misses": self.misses}
        self.hits = self.misses = 0
        return taken

    def put(self, answers: Mapping[str, Answer], *, question: str = "", engine: str = "", seconds: float = 0.0) -> None:
        """Store answers in one transaction: all of them, or none.

        Args:
            answers: by key.
            question: the stage's label, for `holdings`; no part of the key.
            engine: the engine's fingerprint, likewise.
            seconds: that they took together.
        """
        about = (question, engine, seconds / max(len(answers), 1))
        rows = [(key, a.text, a.status, a.reason, _checksum(key, a), *about) for key, a in answers.items()]
        with self._writing, _sqlite_errors(self.path), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def holdings(self) -> list[Holding]:
        """Return the counts of answers by stage and engine."""
        with _sqlite_errors(self.path):
            rows = self._connection.execute(
                "SELECT CAST(ask AS TEXT), CAST(engine AS TEXT), COUNT(*), SUM(status = 'unusable'), "
                "SUM(LENGTH(text)), TOTAL(seconds) FROM generations GROUP BY 1, 2 ORDER BY 1, 2"
            ).fetchall()
        return [Holding(*row) for row in rows]

    def verify(self) -> tuple[int, int]:
        """Check every row's checksum; return the number of rows and of damaged ones."""
        damaged = self._damaged()
        with _sqlite_errors(self.path):
            rows = self._connection.execute("SELECT COUNT(*) FROM generations").fetchone()[0]
        return rows, len(damaged)

    def prune(self, *, unusable: bool = False, engine: str = "") -> int:
        """Remove damaged rows, and on demand unusable ones, and those of engines whose fingerprint holds `engine`.

        Returns:
            How many rows went; the file is then packed.
        """
        with _sqlite_errors(self.path):
            with self._connection:
                gone = self._connection.executemany(
                    "DELETE FROM generations WHERE key = ?", [(key,) for key in self._damaged()]
                ).rowcount
                gone = max(gone, 0)
                if unusable:
                    gone += self._connection.execute("DELETE FROM generations WHERE status = 'unusable'").rowcount
                if engine:
                    gone += self._connection.execute(
                        "DELETE FROM generations WHERE INSTR(engine, ?) > 0", (engine,)
                    ).rowcount
            self._connection.execute("VACUUM")
        return gone

    def _damaged(self) -> list[str]:
        with _sqlite_errors(self.path):
            rows = self._connection.execute("SELECT key, text, status, reason, checksum FROM generations")
            return [key for key, *fields, checksum in rows if _answer(key, fields, checksum) is None]

    def close(self) -> None:
        """Close the file."""
        with self._writing:
            self._connection.close()


@contextmanager
def open_cache(path: Path | None = None) -> Iterator[GenerationCache]:
    """Open a cache, the user's own by default, and close it afterwards.

    Raises:
        StorageError: the file or its folder cannot be written, or is no cache.
        MismatchError: it has a newer schema version.
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
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"the generation cache {path} is damaged ({error}); the next start puts it aside and begins a new one"
        ) from error
