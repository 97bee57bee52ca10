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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from markupsafe import Markup
from mllmrec_cli.main import app
from mllmrec_kernels import KernelError
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.main import get_command
from typer.testing import CliRunner

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import MllmrecError
from mllmrec.foundation import digests, storage
from mllmrec.pipeline import run

SETTINGS = ("model.kind=bpr", "train.epochs=2", "train.dim=8", "train.device=cpu", "graph.device=cpu")
MAX_SECONDS = 10.0
MAX_ADDED_MIB = 1024
_DRAWN = 8  # every so many cases, figures are drawn; in the others they are only laid out, which saves a third
_WORDS = [word for setting in SETTINGS for word in ("--set", setting)]
_INOTIFY = 0xFFF  # every event
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REMOVALS = ("os.remove", "os.rmdir", "os.rename", "os.truncate", "os.chmod", "os.link", "os.symlink", "os.mkdir")


class HashEncoder:
    """An encoder without a model: a text's vector is drawn from its hash."""

    def __init__(self, config: Any) -> None:
        self._config = config

    @staticmethod
    def identity(config: Any) -> str:
        """Return what its vectors depend on."""
        return "hash"

    def fit(self, parts: Sequence[str]) -> tuple[str, int]:
        """Return the text as it is encoded, and how much was cut from it."""
        return " ".join(parts), 0

    def encode(self, texts: Sequence[str], parts: Path, progress: Any, label: str, blocks: Any = None) -> Any:
        """Return unit vectors, float32 [n, 8]."""
        seeds = [int(digests.hash_bytes(text.encode("utf-8", "replace"))[:8], 16) for text in texts]
        rows = np.array([np.random.default_rng(seed).standard_normal(8) for seed in seeds], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@contextmanager
def hash_encoder() -> Iterator[None]:
    """Encode by HashEncoder inside the block."""
    with (
        patch("mllmrec.features.encode.Encoder", HashEncoder),
        patch("mllmrec.pipeline.Encoder", HashEncoder),
        patch("mllmrec.pipeline.check_encoder", lambda config: None),
    ):
        yield


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


class Mutator:
    """Random changes of a case.

    Args:
        case: the folder with `run` and `dataset`.
        victim: the folder that nobody may touch.
        rng: decides everything.
    """

    def __init__(self, case: Path, victim: Path, rng: random.Random) -> None:
        self._case, self._victim, self._rng = case, victim, rng

    def mutate(self) -> str:
        """Change the case, seal half of the changes anew, and return what was done."""
        done = []
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            change = self._rng.choice((self._json, self._json, self._names, self._link, self._bytes, self._table,
                                       self._array, self._tensors, self._special))  # fmt: skip
            done.append(change())
        if self._rng.random() < 0.5:
            self._seal()
            done.append("sealed")
        return "; ".join(done)

    def _files(self, *endings: str) -> list[Path]:
        files = sorted(path for path in self._case.rglob("*") if _is_small(path))
        return [path for path in files if path.name.endswith(endings or ("",)) and "images" not in path.parts]

    def _json(self) -> str:
        path = self._rng.choice(self._files(".json"))
        try:
            value = json.loads(path.read_text())
        except (ValueError, UnicodeDecodeError):
            return "nothing"
        where = self._change(value)
        path.write_text(json.dumps(value, ensure_ascii=self._rng.random() < 0.9), errors="replace")
        return f"{path.parent.name}/{path.name}: {where}"

    def _change(self, value: Any) -> str:
        """Replace, remove or add one value somewhere inside."""
        names = []
        while True:
            key = self._rng.choice(list(value)) if isinstance(value, dict) else self._rng.randrange(len(value))
            names.append(str(key))
            inner = value[key]
            if isinstance(inner, dict | list) and inner and self._rng.random() < 0.85:
                value = inner
                continue
            kind = self._rng.random()
            if kind < 0.15:
                del value[key]
            elif kind < 0.25 and isinstance(value, dict):
                value[self._name()] = self._value()
            else:
                value[key] = self._value()
            return f"{'.'.join(names)[:60]}"

    def _value(self) -> Any:
        return self._rng.choice(
            (None, True, False, -1, 0, 1, 2**40, 2**70, 1e308, float("nan"), float("inf"), "", "x" * 100_000, "\0",
             "\ud800", "\x1b[2J\x9b", [], {}, [[]], [None], {"a": {"b": []}}, "0" * 64, self._name(), self._name())
        )  # fmt: skip

    def _name(self) -> str:
        away = [path for path in sorted(self._victim.rglob("*")) if path.is_file()]
        path = self._rng.choice(away)
        return self._rng.choice(
            (str(path), f"../../victim/{path.name}", f"../../../victim/{path.name}", "..", ".", "/", "../run.json",
             str(self._victim), f"images/../../../victim/{path.name}", "stage.json", ".lock", "a\0b", "C:\\x", "~/x")
        )  # fmt: skip

    def _names(self) -> str:
        """Name files elsewhere: in a seal, the manifest, the table of pictures or the run's dataset."""
        kind = self._rng.randrange(4)
        if kind == 0:
            path = self._rng.choice(self._files("stage.json") or [self._case / "run" / "run.json"])
            return self._edit(path, lambda value: value.setdefault("outputs", {}).update({self._name(): "0" * 64}))
        if kind == 1:
            path = self._case / "dataset" / "manifest.json"
            return self._edit(path, lambda value: value.setdefault("files", {}).update({self._name(): "0" * 64}))
        if kind == 2:
            path = self._case / "run" / "run.json"
            # A dataset may lie anywhere: a folder with a manifest is looked into wherever it is, and then refused.
            name = self._name()
            place = str(self._victim.parent / "nowhere") if name == str(self._victim) else name
            return self._edit(path, lambda value: value.update(dataset_folder=place))
        path = self._case / "dataset" / "items.parquet"
        try:
            table = pl.read_parquet(path if _is_small(path) else self._case / "missing")
        except Exception:
            return "nothing"
        table.with_columns(images=pl.lit([self._name()], pl.List(pl.String))).write_parquet(path)
        self._seal()
        return "names of pictures, sealed"

    def _edit(self, path: Path, edit: Callable[[Any], None]) -> str:
        try:
            if not _is_small(path):
                return "nothing"
            value = json.loads(path.read_text())
            edit(value)
        except (ValueError, AttributeError, OSError):
            return "nothing"
        path.write_text(json.dumps(value))
        return f"{path.parent.name}/{path.name}: a name"

    def _link(self) -> str:
        """Put a link in place of a file or folder, or plant one under a name that is written or locked.

        The dataset's own folder stays: it may lie anywhere, behind a link too, and is then checked where it lies.
        """
        planted = [
            ".lock", ".run.json.tmp", "report.html", "inspect", "config.toml", "run.json", "train/.stage.json.tmp",
            "train/.unfinished-0000000000000000", "encode/parts", "train", "encode", "recommend", ".mllmrec-0.tmp",
            "../dataset/.lock", "../dataset/images", "../dataset/features",
        ]  # fmt: skip
        files = [os.path.relpath(path, self._case / "run") for path in self._files()]
        name = self._rng.choice([*planted, *files])
        path = self._case / "run" / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        if not path.parent.is_dir():
            return "nothing"
        target = self._rng.choice((self._victim, self._victim / "secret.txt", self._victim / "secret.png"))
        path.symlink_to(target, target_is_directory=target.is_dir())
        return f"link {name} -> {target.name}"

    def _bytes(self) -> str:
        path = self._rng.choice(self._files())
        data = bytearray(path.read_bytes())
        kind = self._rng.randrange(4)
        if kind == 0:
            data = data[: self._rng.randrange(len(data) + 1)]
        elif kind == 1 and data:
            for _ in range(self._rng.randrange(1, 8)):
                data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        elif kind == 2:
            data = bytearray(self._rng.randbytes(self._rng.randrange(200)))
        else:
            data = data + data
        path.write_bytes(data)
        return f"{path.parent.name}/{path.name}: bytes {kind}"

    def _table(self) -> str:
        path = self._rng.choice(self._files(".parquet") or [self._case])
        try:
            table = pl.read_parquet(path)
        except Exception:
            return "nothing"
        if not table.width:
            return "nothing"
        column = self._rng.choice(table.columns)
        changes: tuple[Callable[[], pl.DataFrame], ...] = (
            lambda: table.drop(column),
            lambda: table.rename({column: "other"}),
            lambda: table.with_columns(pl.lit(None).alias(column)),
            lambda: table.with_columns(pl.lit(self._name()).alias(column)),
            lambda: table.with_columns(pl.lit(2**31 - 1, pl.Int32).alias(column)),
            lambda: table.with_columns(pl.lit(-1, pl.Int64).alias(column)),
            lambda: table.with_columns(pl.lit(float("nan")).alias(column)),
            lambda: table.with_columns(pl.lit(["a"]).alias(column)),
            lambda: table.head(len(table) // 2),
            lambda: pl.concat([table, table]),
            lambda: table.sample(fraction=1.0, shuffle=True, seed=1),
            lambda: table.clear(),
            lambda: table.with_columns(pl.col(column).cast(pl.String, strict=False)),
        )
        n = self._rng.randrange(len(changes))
        try:
            changed = changes[n]()
        except pl.exceptions.PolarsError:  # a list has no text
            return "nothing"
        storage.write_table(path, changed, notes=_notes(path) if self._rng.random() < 0.8 else None)
        return f"{path.parent.name}/{path.name}: {column} {n}"

    def _array(self) -> str:
        path = self._rng.choice(self._files(".npy"))
        try:
            array = np.load(path, allow_pickle=False)
        except Exception:
            return "nothing"
        changes: tuple[Callable[[], Any], ...] = (
            lambda: array[:1], lambda: array[:, :0], lambda: array.astype(np.float64), lambda: array.astype("S4"),
            lambda: array.astype(np.complex64), lambda: np.full_like(array, np.nan), lambda: array.reshape(-1),
            lambda: np.concatenate([array, array]), lambda: np.float32(3), lambda: array.astype("M8[s]"),
        )  # fmt: skip
        n = self._rng.randrange(len(changes))
        try:
            np.save(path, changes[n]())
        except (IndexError, TypeError, ValueError, RuntimeError):  # of casts that NumPy does not have
            return "nothing"
        return f"{path.parent.name}/{path.name}: array {n}"

    def _tensors(self) -> str:
        path = self._rng.choice(self._files(".safetensors"))
        try:
            tensors = load_file(path)
            name = self._rng.choice(sorted(tensors))
        except Exception:
            return "nothing"
        kind = self._rng.randrange(5)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[name] = tensors[name].astype(np.float64)
        elif kind == 2:
            tensors[name] = np.ascontiguousarray(tensors[name][: len(tensors[name]) // 2])
        elif kind == 3:
            tensors[name] = np.full_like(tensors[name], -5)
        else:
            tensors[name] = np.ascontiguousarray(tensors[name].reshape(-1)[::-1])
        save_file(tensors, path)
        return f"{path.parent.name}/{path.name}: {name} {kind}"

    def _special(self) -> str:
        """Put a pipe, a folder, a sparse giant or nested folders somewhere."""
        kind = self._rng.randrange(5)
        path = self._rng.choice(self._files())
        if kind == 0:
            path.unlink()
            os.mkfifo(path)
        elif kind == 1:
            path.unlink()
            path.mkdir()
        elif kind == 2:
            with path.open("ab") as file:
                file.truncate(1 << 36)
        elif kind == 3:
            path.parent.joinpath(*"abcdefghij").mkdir(parents=True, exist_ok=True)
        else:
            path.unlink()
        return f"{path.parent.name}/{path.name}: special {kind}"

    def _seal(self) -> None:
        """Write the hashes of the files that lie there, as a forger would."""
        for path in [*(self._case / "run").glob("*/stage.json"), self._case / "dataset" / "manifest.json"]:
            if not _is_small(path):
                continue
            key = "files" if path.name == "manifest.json" else "outputs"
            try:
                value = json.loads(path.read_text())
                for name in value[key]:
                    file = path.parent / name
                    if _is_small(file) and self._case in file.resolve().parents:
                        value[key][name] = digests.hash_file(file)
                path.write_text(json.dumps(value))
            except (ValueError, KeyError, TypeError, OSError, AttributeError):
                continue


def _is_small(path: Path) -> bool:
    """Tell whether a file can be changed here: no link, no pipe, and no giant that an earlier change left."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 24


def _notes(path: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}


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
