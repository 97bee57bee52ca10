"""Where a command runs: folders that are mounted, linked or read-only, a full disk, no home, odd variables."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from mllmrec_kernels.base import choose_folder
from safetensors.numpy import load_file, save_file

from mllmrec.config import RecommendConfig
from mllmrec.dataset import Dataset, PrepareOptions, load, prepare
from mllmrec.errors import StorageError
from mllmrec.foundation import storage
from mllmrec.foundation.folders import replaced_folder, user_cache_folder
from mllmrec.models.ease import EASE
from mllmrec.reason.cache import default_path
from mllmrec.recommend import Recommendations, recommend_items
from tests.cli.test_cli import fault, mllmrec

NAMES = ("valid", "data")
OPTIONS = PrepareOptions(k_core=2)


def fill(path: Path, text: str) -> None:
    with replaced_folder(path, NAMES) as building:
        (building / "valid").write_text(text)
        (building / "data").mkdir()
        (building / "data" / "x").write_text(text)


def content(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def whole(text: str) -> dict[str, str]:
    return {"valid": text, "data/x": text}


def usual(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def mounted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.ismount", lambda other: Path(other) == path)
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source == path:
            raise OSError(errno.EBUSY, "busy", str(source))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)


def unwritable_parent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def refuse(folder: Path, *arguments: object, **named: object) -> None:
        if folder.parent == path.parent:
            raise PermissionError(errno.EACCES, "denied", str(folder))
        mkdir(folder, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)


def current(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path)


def busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming is refused only once the new folder is whole, as on some overlays."""
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source == path:
            raise OSError(errno.EXDEV, "another device", str(source))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)


PLACES = [usual, mounted, unwritable_parent, current, busy]


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_is_replaced_wherever_it_lies(
    place: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parent" / "out"
    fill(path, "old")
    place(path, monkeypatch)
    fill(path, "new")
    assert content(path) == whole("new")
    assert [one.name for one in path.parent.iterdir()] == ["out"]
    assert sorted(one.name for one in path.iterdir()) == ["data", "valid"]


@pytest.mark.parametrize("place", PLACES)
def test_the_old_folder_stays_where_the_new_one_fails(
    place: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parent" / "out"
    fill(path, "old")
    place(path, monkeypatch)

    def broken() -> None:
        with replaced_folder(path, NAMES) as building:
            (building / "valid").write_text("half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageError, match="no space left"):
        broken()
    assert content(path) == whole("old")
    assert [one.name for one in path.parent.iterdir()] == ["out"]


def test_what_was_put_aside_comes_back_where_the_swap_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    fill(path, "old")
    monkeypatch.chdir(path)
    rename, moved = Path.rename, []

    def refuse(source: Path, target: Path) -> Path:
        moved.append(target)
        if len(moved) == 4:  # both old names are aside, and one of the new ones is in place
            raise OSError(errno.EIO, "broken", str(source))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="broken|Input/output"):
        fill(path, "new")
    assert content(path) == whole("old")


def test_a_link_to_a_dataset_is_followed_and_stays(shop: Path, tmp_path: Path) -> None:
    prepare(shop, tmp_path / "real", OPTIONS)
    (tmp_path / "link").symlink_to("real")
    made = prepare(shop, tmp_path / "link", PrepareOptions(k_core=0), force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_dir()
    assert load(tmp_path / "real").n_items == made.n_items
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_the_current_folder_may_be_the_dataset_and_the_run(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for force in ((), ("--force",)):
        done = mllmrec("prepare", shop, "--out", ".", "--k-core", 2, "--quiet", *force, cwd=tmp_path / "d")
        assert done.returncode == 0, done.stderr
    assert load(tmp_path / "d").n_users > 0
    (tmp_path / "r").mkdir()
    words = ("describe", tmp_path / "d", "--out", ".", "--cache", tmp_path / "c.sqlite", "--quiet")
    assert mllmrec(*words, cwd=tmp_path / "r").returncode == 0
    assert (tmp_path / "r" / "run.json").is_file()


def test_a_second_writer_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with replaced_folder(tmp_path / "out", NAMES) as building:
            (building / "valid").write_text("first")
            started.set()
            go_on.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    assert started.wait(10)
    with pytest.raises(StorageError, match="out is being written by another mllmrec process; wait for it to end"):
        fill(tmp_path / "out", "second")
    go_on.set()
    thread.join()
    assert content(tmp_path / "out") == {"valid": "first"}
    fill(tmp_path / "out", "second")
    assert content(tmp_path / "out") == whole("second")


def test_a_link_where_a_folder_is_put_together_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_text("kept")
    (tmp_path / ".out.partial").symlink_to("precious")
    with pytest.raises(StorageError, match="cannot write"):
        fill(tmp_path / "out", "new")
    assert content(tmp_path / "precious") == {"x": "kept"}


def test_an_unreadable_picture_is_named_and_not_blamed_on_the_output(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: object, *arguments: object, **named: object) -> int:
        if str(path).startswith(str(shop)) and str(path).endswith((".png", ".jpg")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    made = prepare(shop, tmp_path / "d", OPTIONS)
    assert "60 image files cannot be read (60 x Permission denied)" in made.manifest["warnings"]
    assert made.items["images"].list.len().sum() == 0


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_an_empty_table_of_recommendations_is_a_table(dataset: Dataset, tmp_path: Path, form: str) -> None:
    """Everybody has every item, so nobody is recommended anything."""
    every = sp.csr_matrix(np.ones((4, 3), dtype=np.float32))
    rows = [(user, item) for user in range(4) for item in range(3)]
    users, items = zip(*rows, strict=True)
    interactions = pl.DataFrame(
        {"user": users, "item": items, "rating": None, "timestamp": None, "split": 0},
        schema=dataset.interactions.schema,
    )
    full = Dataset("full", dataset.users[:4], dataset.items[:3], interactions, dataset.manifest, tmp_path)
    made = recommend_items(EASE().fit(every), full, RecommendConfig(format=form))
    assert len(made.users) == 0
    made.save(lambda name: tmp_path / name)
    again = Recommendations.load(lambda name: tmp_path / name)
    assert again.users.equals(made.users) and again.users.schema == made.users.schema
    assert again.items.equals(made.items) and again.suffix == form


FULL_DISK = (
    "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "from pathlib import Path; import numpy as np, polars as pl\n"
    "from safetensors.numpy import save_file; from mllmrec.errors import StorageError\n"
    "from mllmrec.foundation import storage\n"
    "rows = np.random.default_rng(0).random(20_000); folder = Path(sys.argv[1])\n"
    "writers = {'x.safetensors': lambda path: save_file({'a': rows}, path),\n"
    "    'x.csv': lambda path: pl.DataFrame({'a': rows}).write_csv(path),\n"
    "    'x.jsonl': lambda path: pl.DataFrame({'a': rows}).write_ndjson(path),\n"
    "    'x.npy': lambda path: np.save(path.open('wb'), rows),\n"
    "    'x.bin': lambda path: path.write_bytes(rows.tobytes())}\n"
    "for name, write in writers.items():\n"
    "    try:\n"
    "        with storage.atomic(folder / name) as temporary: write(temporary)\n"
    "    except StorageError as error: print(error)\n"
)


def test_a_disk_that_is_full_in_the_middle_of_any_format_is_one_line(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk."""
    save_file({"a": np.zeros(3)}, tmp_path / "x.safetensors")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    names = ("x.safetensors", "x.csv", "x.jsonl", "x.npy", "x.bin")
    assert [line.split(":")[0] for line in lines] == [f"cannot write {tmp_path / name}" for name in names]
    assert all("a file may not grow so large here" in line or "no space left" in line for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]
    assert load_file(tmp_path / "x.safetensors")["a"].shape == (3,)


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mllmrec_cli", "config"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: cannot write to the standard output, or to a file: No space left on device"
    ]


def test_odd_numbers_of_threads_and_names_are_one_line(tmp_path: Path) -> None:
    assert "NUMBA_NUM_THREADS='0' is no number of threads" in fault("config", NUMBA_NUM_THREADS="0")
    assert "NUMBA_NUM_THREADS='two' is no number" in fault("config", NUMBA_NUM_THREADS="two")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(name)  # noqa: PTH102 - a name that is not UTF-8
    for words in (("show", name), ("prepare", name, "--out", tmp_path / "d"), ("run", tmp_path, "--out", name)):
        assert "is not valid UTF-8" in fault(*words)


def test_names_that_are_not_utf8_are_kept_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"/place/\xff")
    storage.write_json(tmp_path / "x.json", {"folder": name})
    assert storage.read_json(tmp_path / "x.json") == {"folder": name}
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"folder": name}


def test_no_home_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "MLLMREC_CACHE"):
        monkeypatch.delenv(variable, raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(StorageError, match="set HOME or XDG_CACHE_HOME"):
        default_path()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "mllmrec"


def test_compiled_code_falls_back_to_a_private_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere/cache")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert "beside the source files" in choose_folder()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(tmp_path)))
    assert "neither the package nor a home can be written to" in choose_folder()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder == tmp_path / f"mllmrec-code-{os.getuid()}" and folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    folder.chmod(0o777)  # Numba runs what lies there: a folder that others can write to is not used
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / "own"))
    choose_folder()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "own")
    monkeypatch.delenv("NUMBA_CACHE_DIR")


def test_code_is_compiled_where_neither_package_nor_home_can_be_written_to(tmp_path: Path) -> None:
    script = (
        "import os; os.access = lambda path, mode: False\n"
        "import numpy as np; from mllmrec_kernels import unique_rows\n"
        "print(unique_rows(np.array([3, 1, 3]))[0].tolist())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[3, 1]"), done.stderr
    assert list((tmp_path / f"mllmrec-code-{os.getuid()}").rglob("*unique_rows*.nbi"))
