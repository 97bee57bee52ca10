"""Compiled code that no longer fits its sources is removed; other code stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mllmrec_kernels.base import stale_code
from mllmrec_kernels.base.stale_code import remove_stale_code

SOURCES = {
    "__init__": "",
    "pair": "from typing import NamedTuple\n\nclass Pair(NamedTuple):\n    a: int\n    b: int\n",
    "step": "from numba import njit\n\n@njit(cache=True)\ndef step(x):\n    return x + 1\n",
    "total": (
        "from numba import njit\nfrom shop_code.step import step\n\n"
        "@njit(cache=True)\ndef total(pair):\n    return step(pair.a + pair.b)\n"
    ),
}
MOVED = {"pair": None, "both": SOURCES["pair"]}
RUN = "from shop_code.{module} import Pair; from shop_code.total import total; print(total(Pair(1, 2)))"


def write(package: Path, sources: dict[str, str | None]) -> None:
    """Write or delete source files; each gets another time of change."""
    package.mkdir(exist_ok=True)
    for name, text in sources.items():
        path = package / f"{name}.py"
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def run(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """Sum a pair in a process of its own."""
    script = RUN.format(module=module)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_numba_alone_fails_where_a_type_moved_and_runs_old_code_where_a_callee_changed(tmp_path: Path) -> None:
    package = tmp_path / "shop_code"
    write(package, dict(SOURCES))
    assert remove_stale_code(package, None) == 0
    assert run(tmp_path, "pair").stdout == "4\n"
    write(package, {"step": SOURCES["step"].replace("x + 1", "x + 5")})
    assert run(tmp_path, "pair").stdout == "4\n"  # what the removal is for
    assert remove_stale_code(package, None) == 2
    assert run(tmp_path, "pair").stdout == "8\n"
    write(package, MOVED)
    assert "ModuleNotFoundError: No module named 'shop_code.pair'" in run(tmp_path, "both").stderr
    assert remove_stale_code(package, None) == 1
    assert run(tmp_path, "both").stdout == "8\n"
    assert remove_stale_code(package, None) == 0


def index(package: Path, root: Path | None, name: str, *named: str) -> Path:
    """Write an index of a function of a module that names some modules, as Numba would."""
    folder = package / "__pycache__"
    if root is not None:
        folder = root / f"{package.name}_{stale_code._hash(str(package).encode())}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.f-4.py311.nbi"
    path.write_bytes(b"\x80\x05" + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() + b"\x94" for word in named))
    return path


@pytest.mark.parametrize("is_named", [False, True])
def test_what_uses_a_changed_file_goes_and_the_rest_stays(tmp_path: Path, is_named: bool) -> None:
    package, root = tmp_path / "shop_code", tmp_path / "named" if is_named else None
    write(package, dict(SOURCES))
    step, total, other, typed = (
        index(package, root, name, *named)
        for name, named in (
            ("step", ()), ("total", ()), ("pair", ("shop_code.pair",)), ("__init__", ("shop_code.step",))
        )
    )  # fmt: skip
    gone = index(package, root, "pair", "shop_code.gone").rename(other.with_name("pair.g-9.py311.nbi"))
    other = index(package, root, "pair", "shop_code.pair")
    assert remove_stale_code(package, root) == 1  # nothing was noted yet: only what names no module goes
    assert not gone.exists()
    write(package, {"pair": SOURCES["pair"]})  # of another time, of the same content
    assert remove_stale_code(package, root) == 0
    write(package, {"step": "# changed\n"})
    assert remove_stale_code(package, root) == 3
    assert [path.exists() for path in (step, total, typed, other)] == [False, False, False, True]


def test_a_note_that_cannot_be_read_or_written_is_no_error(tmp_path: Path) -> None:
    package = tmp_path / "shop_code"
    write(package, dict(SOURCES))
    remove_stale_code(package, None)
    (note,) = (package / "__pycache__").glob("*.sources.json")
    for content in ("", "[1]", "{"):
        note.write_text(content)
        assert remove_stale_code(package, None) == 0
    file = tmp_path / "file"
    file.write_text("")
    assert remove_stale_code(package, file) == 0
