"""The generation cache: committed by batch, checked by row, shared by processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mllmrec.errors import EngineError, MismatchError, StorageError
from mllmrec.foundation.progress import silent
from mllmrec.reason.cache import GenerationCache, open_cache
from mllmrec.reason.engine import Answer
from mllmrec.reason.generate import generate


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        cache.put({"k": Answer("text \u00e9", "ok", "why")})
    with open_cache(tmp_path / "c.sqlite") as cache:
        assert cache.get(["k", "other"]) == {"k": Answer("text \u00e9", "ok", "why")}
        assert (cache.hits, cache.misses) == (1, 1)


def test_a_damaged_row_is_a_miss_and_is_counted(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        cache.put({"k": Answer("true")})
    connection = sqlite3.connect(tmp_path / "c.sqlite")
    connection.execute("UPDATE generations SET text = 'false'")
    connection.commit()
    connection.close()
    with open_cache(tmp_path / "c.sqlite") as cache:
        assert cache.get(["k"]) == {}
        assert cache.damaged == 1


def test_a_killed_writer_keeps_its_finished_batches(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from mllmrec.reason.cache import GenerationCache\n"
        "from mllmrec.reason.engine import Answer\n"
        "cache = GenerationCache(Path(sys.argv[1])); cache.put({'a': Answer('1')}); cache.put({'b': Answer('2')})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "c.sqlite")], check=False)
    with open_cache(tmp_path / "c.sqlite") as cache:
        assert set(cache.get(["a", "b"])) == {"a", "b"}


def test_processes_share_one_file_and_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mllmrec.reason.cache import open_cache\n"
        "from mllmrec.reason.engine import Answer\n"
        "with open_cache(Path(sys.argv[1])) as cache:\n"
        "    for n in range(60): cache.put({f'{sys.argv[2]}-{n}': Answer(str(n))})"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "c.sqlite"), name]) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    with open_cache(tmp_path / "c.sqlite") as cache:
        assert len(cache.get([f"{name}-{n}" for name in "ab" for n in range(60)])) == 120


def test_many_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mllmrec.reason.cache import GenerationCache\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(60): GenerationCache(Path(sys.argv[1]) / f'{n}.sqlite').close()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = [process.communicate("go\n", timeout=120) for process in running]
    assert [error for _, error in ended] == [""] * 4


def test_another_schema_and_what_is_no_cache_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(MismatchError, match="cache schema 99, this version of mllmrec reads up to"):
        GenerationCache(tmp_path / "new.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as one" * 100)
    with pytest.raises(StorageError, match="is not a usable cache"):
        GenerationCache(tmp_path / "text.sqlite")
    assert (tmp_path / "text.sqlite").read_text().startswith("no database")


def test_each_distinct_request_is_asked_once_and_failures_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def complete(batch: list[str], report: object) -> list[Answer]:
        asked.extend(batch)
        return [Answer("", "failed", "no") if text == "bad" else Answer(text.upper()) for text in batch]

    requests = ["a", "bad", "a", "b"]
    with open_cache(tmp_path / "c.sqlite") as cache:
        for _ in range(2):
            answers = generate(
                keys=requests,
                requests=requests,
                complete=complete,
                batch_size=lambda: 2,
                cache=cache,
                progress=silent,
                label="x",
            )
            assert [answer.text for answer in answers] == ["A", "", "A", "B"]
    assert asked == ["a", "bad", "b", "bad"]


def test_an_engine_that_answers_short_is_refused_not_shifted(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache, pytest.raises(EngineError, match="1 answers to 2 requests"):
        generate(
            keys=["a", "b"],
            requests=["a", "b"],
            complete=lambda batch, report: [Answer("x")],
            batch_size=lambda: 2,
            cache=cache,
            progress=silent,
            label="x",
        )


def test_a_damaged_file_is_put_aside_with_a_word_and_never_wiped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.sqlite"
    with open_cache(path) as cache:
        cache.put({f"k{n}": Answer("text " * 50) for n in range(300)})
    torn = bytearray(path.read_bytes())
    torn[100:9000] = b"\xab" * 8900
    path.write_bytes(torn)
    with open_cache(path) as cache:
        assert cache.get(["k1"]) == {}
        cache.put({"k1": Answer("new")})
    assert "is damaged" in caplog.text and "kept as c.sqlite.damaged-1" in caplog.text
    assert (tmp_path / "c.sqlite.damaged-1").read_bytes() == bytes(torn)
    with open_cache(path) as cache:
        assert cache.get(["k1"]) == {"k1": Answer("new")}


def test_a_file_of_the_first_schema_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    with open_cache(tmp_path / "new.sqlite") as cache:
        cache.put({"k": Answer("kept")})
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    row = connection.execute("SELECT key, text, status, reason, checksum FROM generations").fetchone()
    connection.close()
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    connection.execute(
        "CREATE TABLE generations (key TEXT PRIMARY KEY, text TEXT NOT NULL, status TEXT NOT NULL, "
        "reason TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO generations VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    with open_cache(tmp_path / "old.sqlite") as cache:
        assert cache.get(["k"]) == {"k": Answer("kept")}
        cache.put({"l": Answer("more")}, question="describe", engine="e", seconds=2.0)
        assert [(one.question, one.engine, one.rows) for one in cache.holdings()] == [("", "", 1), ("describe", "e", 1)]


def test_pruning_takes_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        cache.put({"a": Answer("1"), "b": Answer("", "unusable", "empty")}, engine="one")
        cache.put({"c": Answer("3")}, engine="two")
        assert cache.prune() == 0
        assert cache.prune(unusable=True) == 1
        assert cache.prune(engine="tw") == 1
        assert set(cache.get(["a", "b", "c"])) == {"a"}
        assert cache.verify() == (1, 0)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_file_and_its_new_folder_are_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with open_cache(tmp_path / "folder" / "c.sqlite") as cache:
        cache.put({"k": Answer("text")})
        assert {_mode(path) for path in (tmp_path / "folder").iterdir()} == {0o600}
    assert _mode(tmp_path / "folder") == 0o700 and _mode(tmp_path) == 0o755
    (tmp_path / "folder" / "c.sqlite").chmod(0o644)
    with open_cache(tmp_path / "folder" / "c.sqlite") as cache:
        assert cache.get(["k"]) == {"k": Answer("text")}
    assert _mode(tmp_path / "folder" / "c.sqlite") == 0o600


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE orders (id)",
        f"CREATE VIEW generations AS {ENDLESS}",
        "CREATE TABLE generations (key, text)",
        "CREATE TABLE generations (key TEXT PRIMARY KEY, text AS (hex(key)), status, reason, checksum)",
    ],
)
def test_a_database_of_another_shape_is_refused_and_kept(tmp_path: Path, script: str) -> None:
    for version in (0, 1, 2):
        path = tmp_path / f"{version}.sqlite"
        connection = sqlite3.connect(path)
        connection.executescript(f"{script}; PRAGMA user_version = {version}")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(StorageError, match="is not a generation cache"), open_cache(path):
            pass
        assert path.read_bytes() == before


def test_a_trigger_in_a_cache_is_refused(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite"):
        pass
    connection = sqlite3.connect(tmp_path / "c.sqlite")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON generations BEGIN DELETE FROM generations; END")
    connection.close()
    with pytest.raises(StorageError, match="its tables are generations, t"), open_cache(tmp_path / "c.sqlite"):
        pass


def test_rows_of_other_types_are_misses_and_can_be_pruned(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        cache.put({"k": Answer("text")})
    connection = sqlite3.connect(tmp_path / "c.sqlite")
    connection.execute("INSERT INTO generations VALUES (x'00', x'ff', 'ok', '', 'c', x'61', x'62', 'long')")
    connection.commit()
    connection.close()
    with open_cache(tmp_path / "c.sqlite") as cache:
        assert [(one.question, one.engine, one.rows) for one in cache.holdings()] == [("", "", 1), ("a", "b", 1)]
        assert cache.verify() == (2, 1)
        assert cache.prune() == 1
        assert cache.get(["k"]) == {"k": Answer("text")}


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_links_where_the_cache_writes_are_refused_and_their_targets_kept(tmp_path: Path, ending: str) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / f"c.sqlite{ending}").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="remove it"), open_cache(tmp_path / "c.sqlite"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_journal_that_names_a_file_to_remove_is_refused(tmp_path: Path) -> None:
    """SQLite removes the file that such a journal names."""
    with open_cache(tmp_path / "c.sqlite"):
        pass
    name = str(tmp_path / "precious").encode()
    (tmp_path / "precious").write_text("kept")
    ending = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    (tmp_path / "c.sqlite-journal").write_bytes(b"\0" * 512 + b"\0\0\0\1" + name + ending)
    with pytest.raises(StorageError, match="names a file of another database"), open_cache(tmp_path / "c.sqlite"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
