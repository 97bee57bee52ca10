"""Runs and datasets that were changed at random, taken through the verbs that read them.

    python -m tests.fuzz_folders --cases 5000 --seed 1

A case is a copy of a small run and its dataset with one to three changes: values in JSON, names, links, special files,
sizes, columns, bytes. Half of the changed files are sealed anew, as a forger would. What happens outside the case's
folder is watched by inotify (every open, write and removal beside it) and by Python's audit hooks.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from markupsafe import Markup
from mllmrec_cli.main import app
from mllmrec_kernels import KernelError
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import MllmrecError
from mllmrec.pipeline import run
from tests.folder_changes import Mutator
from tests.hash_encoder import hash_encoder

SETTINGS = ("model.kind=bpr", "train.epochs=2", "train.dim=8", "train.device=cpu", "graph.device=cpu")
MAX_SECONDS = 10.0
MAX_ADDED_MIB = 1024
_DRAWN = 8  # every so many cases, figures are drawn; in the others they are only laid out, which saves a third
_WORDS = [word for setting in SETTINGS for word in ("--set", setting)]
_INOTIFY = 0xFFF  # every event
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REMOVALS = ("os.remove", "os.rmdir", "os.rename", "os.truncate", "os.chmod", "os.link", "os.symlink", "os.mkdir")


def make_base(folder: Path) -> None:
    """Write a run, its dataset, and the files beside them that nobody may touch."""
    generate_catalogue(folder / "shop", CatalogueOptions(items=24, users=24, seed=3))
    dataset = prepare(folder / "shop", folder / "case" / "dataset", PrepareOptions(k_core=1))
    with hash_encoder():
        run(dataset, folder / "case" / "run", load_config(None, SETTINGS), cache=folder / "case" / "c.sqlite")
    victim = folder / "victim"
    (victim / "inner").mkdir(parents=True)
    for name in ("secret.txt", "inner/secret.txt", "run.json", "stage.json", "manifest.json"):
        (victim / name).write_text("secret " * 100)
    Image.new("RGB", (64, 64), "red").save(victim / "secret.png")
    np.save(victim / "items.npy", np.zeros((24, 8), np.float32))
    shutil.rmtree(folder / "shop")


@dataclass
class Watch:
    """What happened outside the case's folder.

    Attributes:
        folder: the folder that holds the case and the victim.
        touched: one line an event.
    """

    folder: Path
    touched: list[str] = field(default_factory=list)
    active: bool = False

    def __post_init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK)
        for place in (self.folder / "victim", self.folder / "victim" / "inner"):
            self._libc.inotify_add_watch(self._inotify, os.fsencode(place), _INOTIFY)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        name = arguments[0] if arguments else None
        writes = event == "open" and bool((arguments[2] or 0) & _WRITES)
        if isinstance(name, str | bytes) and (writes or event in _REMOVALS):
            self._check(event, name)

    def _check(self, event: str, name: str | bytes) -> None:
        path = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - resolve() would open what it looks at
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118, PTH119, PTH120
        inside = real.startswith((f"{self.folder}/case", f"{self.folder}/out", "/dev/", "/proc/"))
        if not inside and "__pycache__" not in real and "/matplotlib" not in real:
            self.touched.append(f"{event} {real}")

    def take(self) -> list[str]:
        """Return what happened since the last call."""
        try:
            events = os.read(self._inotify, 1 << 16)
        except BlockingIOError:
            events = b""
        start = 0
        while start < len(events):
            _, mask, _, size = struct.unpack_from("iIII", events, start)
            name = events[start + 16 : start + 16 + size].rstrip(b"\0").decode()
            self.touched.append(f"inotify {mask:x} victim/{name}")
            start += 16 + size
        touched, self.touched = self.touched, []
        return touched


class _Hang(BaseException):
    pass


def _hang(*_: object) -> None:
    raise _Hang


@dataclass
class Figures:
    """What a series of cases showed.

    Attributes:
        cases: how many were tried.
        failures: one line each: the case's seed, what was changed, the command, what went wrong.
        ends: exits and error classes, counted.
        longest: seconds of the longest command, of this process's own processor time.
        seconds: the same, summed by verb.
        added_mib: highest resident memory above the start.
    """

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    added_mib: float = 0.0

    def fail(self, line: str) -> None:
        """Keep a failure, and print it at once: a fuzz of an hour is read while it runs."""
        self.failures.append(line)
        sys.stderr.write(line + "\n")


def commands(case: Path, out: Path) -> list[list[str]]:
    """Return the commands that a case goes through."""
    folder, data = str(case / "run"), str(case / "dataset")
    cache = ["--cache", str(case / "c.sqlite")]
    return [
        ["doctor", folder],
        ["show", folder],
        ["report", folder, "--html", str(out / "page.html")],
        *(["export", folder, "--format", form, "--out", str(out / form)] for form in ("mmrec", "vectors", "card")),
        ["run", data, "--out", folder, *cache, "--quiet", *_WORDS],
    ]


def fuzz(folder: Path, cases: int, seed: int, minutes: float = math.inf) -> Figures:
    """Take so many changed copies of a run through the verbs.

    Args:
        folder: an empty folder to work in.
        cases: how many.
        seed: of the first case; the others follow.
        minutes: no case begins later.
    """
    end = time.monotonic() + 60 * minutes
    folder = folder.resolve()
    make_base(folder)
    (folder / "case").rename(folder / "base")
    watch, figures = Watch(folder), Figures()
    started = _peak_mib()
    signal.signal(signal.SIGPROF, _hang)
    signal.signal(signal.SIGALRM, _hang)
    commands_once = patch("typer.testing._get_command", cache(get_command))  # built once, not for each invocation
    with hash_encoder(), commands_once:
        for n in range(cases):
            if time.monotonic() > end:
                break
            _one(folder, seed + n, watch, figures)
            figures.cases += 1
            if figures.cases % 50 == 0:
                sys.stderr.write(f"{figures.cases:,} cases, {len(figures.failures):,} failures\n")
    figures.added_mib = _peak_mib() - started
    return figures


def _one(folder: Path, seed: int, watch: Watch, figures: Figures) -> None:
    case, out = folder / "case", folder / "out"
    for place in (case, out):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "base", case, symlinks=True)
    out.mkdir()
    os.chdir(out)  # bare names, as they are opened relative to a descriptor, count as inside
    _point(case)
    changed = Mutator(case, folder / "victim", random.Random(seed)).mutate()
    watch.take()
    for words in commands(case, out):
        begun = time.process_time()
        with nullcontext() if seed % _DRAWN == 0 else patch("mllmrec.report.figures._inline", lambda *_: Markup()):
            end = _invoke(words, watch)
        spent = time.process_time() - begun
        figures.longest = max(figures.longest, spent)
        figures.seconds[words[0]] = figures.seconds.get(words[0], 0.0) + spent
        figures.ends[f"{words[0]}: {end}"] += 1
        for line in watch.take():
            figures.fail(f"{seed} [{changed}] {' '.join(words[:2])}: touched {line}")
        if end.startswith("!"):
            figures.fail(f"{seed} [{changed}] {' '.join(words[:4])}: {end}")


def _point(case: Path) -> None:
    path = case / "run" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"dataset_folder": str(case / "dataset")}))


def _invoke(words: list[str], watch: Watch) -> str:
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 12 * MAX_SECONDS)  # the machine may be shared; a pipe blocks without using it
    watch.active = True
    try:
        result = CliRunner().invoke(app, words)
        error = result.exception
    except _Hang:
        return f"! more than {MAX_SECONDS:.0f} s"
    finally:
        watch.active = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    if error is None or isinstance(error, SystemExit):
        return f"exit {result.exit_code}"
    if isinstance(error, MllmrecError | KernelError):
        return type(error).__name__
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
    return f"! {type(error).__name__} at {where}: {str(error)[:120]}"


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Fuzz from the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        figures = fuzz(Path(folder), options.cases, options.seed, options.minutes)
    lines = [*figures.failures, *(f"{count:7,} {end}" for end, count in sorted(figures.ends.items()))]
    lines.append(", ".join(f"{verb} {spent / max(1, figures.cases):.2f} s" for verb, spent in figures.seconds.items()))
    lines.append(
        f"{figures.cases:,} cases, {len(figures.failures):,} failures, longest {figures.longest:.1f} s, "
        f"+{figures.added_mib:.0f} MiB, {time.monotonic() - begun:.0f} s in all"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
