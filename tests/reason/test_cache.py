"""The generation cache: committed by batch, checked by row, shared by processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mllmrec.errors import EngineError, MismatchError, StorageError
from mllmrec.progress import silent
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

    def ask(batch: list[str]) -> list[Answer]:
        asked.extend(batch)
        return [Answer("", "failed", "no") if text == "bad" else Answer(text.upper()) for text in batch]

    requests = ["a", "bad", "a", "b"]
    with open_cache(tmp_path / "c.sqlite") as cache:
        for _ in range(2):
            answers = generate(
                keys=requests, requests=requests, ask=ask, batch_size=2, cache=cache, progress=silent, label="x"
            )
            assert [answer.text for answer in answers] == ["A", "", "A", "B"]
    assert asked == ["a", "bad", "b", "bad"]


def test_an_engine_that_answers_short_is_refused_not_shifted(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache, pytest.raises(EngineError, match="1 answers to 2 requests"):
        generate(
            keys=["a", "b"],
            requests=["a", "b"],
            ask=lambda batch: [Answer("x")],
            batch_size=2,
            cache=cache,
            progress=silent,
            label="x",
        )
