"""The command line as a user meets it: one line for every fault, exit codes, JSON, logs, interrupts."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from mllmrec.dataset import Dataset


def mllmrec(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mllmrec_cli", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment | {"COLUMNS": "80"}, capture_output=True, text=True, check=False
    )


def fault(*words: object, **environment: str) -> str:
    """The single line that a faulty command prints; its exit code is 1."""
    done = mllmrec(*words, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr.strip()


def test_bad_input_is_one_line_and_exit_code_one(dataset: Dataset, tmp_path: Path) -> None:
    data = dataset.folder
    assert "is not a folder" in fault("prepare", tmp_path / "none", "--out", tmp_path / "d")
    assert "no model 'ridgge' to compare" in fault("compare", data, "--out", tmp_path / "r", "--models", "ridgge")
    assert "no stage uses one" in fault("study", "prompts", data, "--out", tmp_path / "r")
    assert "is no dataset" in fault("run", tmp_path, "--out", tmp_path / "r")
    assert "did you mean 'graph.threshold'?" in fault("run", data, "--out", tmp_path / "r", "--set", "graph.treshold=1")
    assert "is not a run: it has no run.json; make one with" in fault("show", tmp_path)
    assert "is not a run: a dataset" in fault("show", data)
    (tmp_path / "file").touch()
    assert "cannot write to" in fault("run", data, "--out", tmp_path / "file" / "r")
    assert "holds a dataset already" in fault("prepare", tmp_path, "--out", data)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(dataset: Dataset, tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the write fails in the middle, as it would there."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.argv[0] = 'mllmrec'; from mllmrec_cli.main import main; main()"
    )
    words = ["describe", dataset.folder, "--out", tmp_path / "r", "--cache", tmp_path / "c.sqlite", "--quiet"]
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: cannot (use the generation cache|write) .*", done.stderr.strip()), done.stderr
    assert not list((tmp_path / "r").rglob("*.tmp"))


def test_an_interrupt_says_how_to_go_on(dataset: Dataset, tmp_path: Path) -> None:
    words = [
        "run",
        dataset.folder,
        "--out",
        tmp_path / "r",
        "--cache",
        tmp_path / "c.sqlite",
        "--quiet",
        "--set",
        "train.patience=9999",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mllmrec_cli", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "r" / "describe").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == f"interrupted: what is done is kept; go on with: {shlex.join(['mllmrec', *map(str, words)])}"


def test_an_interrupt_in_a_finaliser_is_not_lost() -> None:
    """Python prints what is raised in __del__ and goes on; a run that Ctrl-C met there went on to its end."""
    script = (
        "import signal, time; from mllmrec_cli import console; console.listen()\n"
        "class Finalised:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT); time.sleep(0.2)\n"
        "item = Finalised(); del item\n"
        "try: time.sleep(30)\n"
        "except console.Interrupted: print('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "heard\n"
    assert not done.stderr


def test_results_come_as_json(dataset: Dataset, tmp_path: Path) -> None:
    done = mllmrec(
        "evaluate",
        dataset.folder,
        "--out",
        tmp_path / "r",
        "--cache",
        tmp_path / "c.sqlite",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["metrics"]["test"]) == {"popularity", "content, untrained", "item-kNN", "ensemble"}
    assert result["stages"]["train"]["seconds"] > 0
    assert "graph.threshold" not in done.stdout


def test_the_command_line_itself_is_exit_code_two(tmp_path: Path) -> None:
    for words in (
        ("runn",),
        ("run", tmp_path),
        ("show", tmp_path, "--users", "-1"),
        ("prepare", "x", "--out", "y", "--split", "z"),
    ):
        done = mllmrec(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Error" in done.stderr


def test_a_log_file_gets_lines_and_no_bars(dataset: Dataset, tmp_path: Path) -> None:
    """Whoever forces colours, as CI does, still gets no frames of a bar."""
    words = ["describe", dataset.folder, "--out", tmp_path / "r", "--cache", tmp_path / "c.sqlite"]
    done = mllmrec(*words, FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\r" not in done.stderr
    assert done.stderr.splitlines() == [
        line for line in done.stderr.splitlines() if line.startswith("describe items: ")
    ]


def test_a_reader_who_leaves_early_is_no_fault(dataset: Dataset) -> None:
    command = f"{shlex.quote(sys.executable)} -m mllmrec_cli config | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("seed = 999\n", "")


def test_a_version_is_what_a_bug_report_begins_with() -> None:
    assert re.fullmatch(r"mllmrec \S+ \(Python 3\.\d+\.\d+, torch \S+, \w+ \w+\)\n", mllmrec("--version").stdout)
