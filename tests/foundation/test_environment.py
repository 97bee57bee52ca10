"""The doctor names what is broken, and how to mend it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mllmrec.errors import ConfigError
from mllmrec.foundation import environment, memory
from mllmrec.foundation.environment import _extra, describe_machine, find_gpu, versions


def examine_with(folder: Path) -> str:
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from mllmrec.foundation.environment import _torchvision, _cupy; print(_torchvision()); print(_cupy())"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_torchvision_of_another_torch_is_named(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    said = examine_with(tmp_path)
    assert "state='broken'" in said
    assert "operator torchvision::nms does not exist; it was built for another torch" in said


def test_cupy_without_a_driver_is_absent_not_broken(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    assert "what='cupy', state='absent'" in examine_with(tmp_path)


def test_a_run_records_versions_and_the_machine() -> None:
    assert versions()["torch"] != "absent"
    assert describe_machine()["cores"]


def test_an_absent_extra_is_named_with_its_command() -> None:
    found = _extra("vlm", ("no_such_package.inner",))
    assert (found.state, found.detail) == ("absent", "optional: pip install 'mllmrec[vlm]'")


def test_memory_is_released_where_the_c_library_can_and_else_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    options: dict[int, int] = {}
    library = SimpleNamespace(malloc_trim=calls.append, mallopt=options.__setitem__)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    memory.release_memory()
    memory.return_large_blocks()
    assert calls == [0] and options == {-3: 16 << 20, -1: 64 << 20, -8: 2}
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.release_memory()
    memory.return_large_blocks()


def test_a_mapped_array_is_read_from_its_file_and_let_go_without_a_change(tmp_path: Path) -> None:
    values = np.arange(3 * 4096, dtype=np.float32).reshape(3, -1)
    np.save(tmp_path / "values.npy", values)
    mapped = memory.map_array(tmp_path / "values.npy")
    assert np.array_equal(mapped, values)
    memory.drop_pages(mapped)
    assert np.array_equal(mapped, values)
    mapped[1, 0] = -1
    memory.drop_pages(mapped)
    assert np.array_equal(np.load(tmp_path / "values.npy"), values)
    memory.drop_pages(values)
    assert values[1, 0] == 4096


def test_torch_is_asked_for_a_gpu_only_where_one_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked: list[str] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(
        environment, "resolve_device", lambda *words: looked.append(words[0]) or SimpleNamespace(type="cpu")
    )
    monkeypatch.setattr(environment, "_GPU_DRIVERS", (str(tmp_path / "driver"),))
    assert find_gpu("auto", "train.device") is None and find_gpu("cpu", "train.device") is None and not looked
    (tmp_path / "driver").touch()
    assert find_gpu("auto", "train.device") is None and looked == ["auto"]  # a driver, and torch sees nothing
    monkeypatch.setattr(environment, "resolve_device", lambda *words: SimpleNamespace(type="cuda"))
    assert find_gpu("auto", "train.device").type == "cuda"
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="train.device=cuda wants a GPU"):
        find_gpu("cuda", "train.device")
