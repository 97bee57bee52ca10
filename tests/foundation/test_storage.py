"""Files are whole or not there, and the disk's refusals are one line."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mllmrec.errors import InputError, StorageError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import remove_temporaries


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "x", "old")

    def interrupted() -> None:
        with storage.atomic(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "x", "old")
    script = (
        "import os, signal, sys; from pathlib import Path; from mllmrec.foundation import storage\n"
        "with storage.atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "x").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def _fixed_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make temporary names foreseeable, as an attacker would wish."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    return storage.temporary_name()


def test_a_write_never_goes_through_a_planted_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".x.tmp").symlink_to(target)
    storage.write_text(folder / "x", "new")
    assert (folder / "x").read_text() == "new"
    assert target.read_text() == "kept"

    (folder / _fixed_name(monkeypatch)).symlink_to(target)
    with pytest.raises(StorageError, match="cannot write"):
        storage.write_text(folder / "x", "newer")
    assert target.read_text() == "kept"
    assert (folder / "x").read_text() == "new"


def test_a_link_as_the_file_itself_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "x").symlink_to(tmp_path / "precious")
    storage.write_text(tmp_path / "x", "new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "x").is_symlink()


def test_a_link_put_in_place_of_the_temporary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")

    def swapped() -> None:
        with storage.atomic(tmp_path / "x") as temporary:
            temporary.unlink()
            temporary.symlink_to(tmp_path / "precious")

    with pytest.raises(StorageError, match="symbolic link"):
        swapped()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_lock_is_neither_followed_nor_truncated(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "linked").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="linked: it is a symbolic link"), storage.open_lock(tmp_path / "linked"):
        pass
    os.link(tmp_path / "precious", tmp_path / "hard")
    with storage.open_lock(tmp_path / "hard"):
        assert (tmp_path / "precious").read_text() == "kept"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="pipe: it is not a regular file"), storage.open_lock(tmp_path / "pipe"):
        pass


def test_a_lock_that_is_held_is_waited_for_or_refused(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with storage.open_lock(lock), pytest.raises(BlockingIOError), storage.open_lock(lock, wait=False):
        pass
    with storage.open_lock(tmp_path / ".lock", wait=False):
        pass


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_lies_in_a_private_folder_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    umask = os.umask(0o022)
    try:
        storage.make_folder(tmp_path / "run", private=True)
        storage.write_text(tmp_path / "run" / "stage" / "x", "")
        storage.write_text(tmp_path / "page", "")
        with storage.open_lock(tmp_path / "run" / ".lock"):
            pass
    finally:
        os.umask(umask)
    assert [_mode(tmp_path / name) for name in ("run", "run/stage", "run/stage/x", "run/.lock", "page")] == [
        0o700, 0o700, 0o600, 0o600, 0o644,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no space left on the device"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_a_disk_that_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    storage.write_text(tmp_path / "x", "old")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=f"cannot write .*x: .*{said}") as caught:
        storage.write_text(tmp_path / "x", "new")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write to"):
        storage.make_folder(tmp_path / "file" / "run")


def test_a_folder_may_be_tried_by_many_at_the_same_moment(tmp_path: Path) -> None:
    """Two commands may start beside each other; each must leave the other's file alone."""

    def tries(_: int) -> None:
        for _ in range(300):
            storage.make_folder(tmp_path / "run")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tries, range(4)))
    assert list((tmp_path / "run").iterdir()) == []


def test_arrays_of_objects_cut_arrays_and_archives_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cut.npy", np.zeros(1000))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:200])
    np.savez(tmp_path / "many.npy.npz", a=np.zeros(2))
    for name in ("object.npy", "cut.npy", "many.npy.npz", "absent.npy"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            storage.read_array(tmp_path / name)


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json is not JSON"):
        storage.read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()


def test_equal_values_hash_equal_whatever_the_order_of_keys_and_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests.hash_value({"a": 1, "b": [1, "\ud800"]})
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert digests.hash_value({"b": [1, "\ud800"], "a": 1}) == first
    assert digests.hash_value({"b": [1, "x"], "a": 1}) != first
