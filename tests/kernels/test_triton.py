"""Triton kernels on a machine without a GPU: in the interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels compile where TRITON_INTERPRET is not set", allow_module_level=True)

import triton

from bench import compile_kernels
from bench.compile_kernels import TABLE, TARGETS, Kernel, Usage

ROOT = Path(__file__).resolve().parents[2]
KERNELS = compile_kernels.kernels()
LAUNCHED = [(kernel, target) for kernel in KERNELS for target in kernel.targets]


@pytest.mark.parametrize("file", ["triton_interpreted.py", "mixed_interpreted.py"])
def test_in_the_interpreter(file: str) -> None:
    """In a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"tests/kernels/{file}",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@pytest.fixture(scope="module")
def usage() -> dict[tuple[str, int], Usage]:
    return {(kernel.name, target): compile_kernels.compiled(kernel, target) for kernel, target in LAUNCHED}


@pytest.mark.parametrize(("kernel", "target"), LAUNCHED, ids=lambda value: getattr(value, "name", str(value)))
def test_compiles_without_a_spill_into_what_a_block_may_hold(
    kernel: Kernel, target: int, usage: dict[tuple[str, int], Usage]
) -> None:
    use = usage[kernel.name, target]
    assert use.spilled == 0
    assert use.shared <= TARGETS[target][1]
    assert use.registers * 32 * kernel.warps_of(target) <= 65_536  # the registers of one processor


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_compiles_where_every_size_is_one(kernel: Kernel) -> None:
    compile_kernels.compiled(kernel, 90, ones=True)


def test_the_table_is_what_compiling_gives(usage: dict[tuple[str, int], Usage]) -> None:
    """Names always; spills and shared memory where this is the Triton that made it. Registers are not held."""
    made, page = compile_kernels.table(lambda kernel, target: usage[kernel.name, target]), TABLE.read_text()
    columns = 4 if f"Triton {triton.__version__}," in page else 1
    assert _held(page, columns) == _held(made, columns), "run `make kernel-table`"


def _held(page: str, columns: int) -> list[list[str]]:
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("|")][2:]
    return [[row[0].strip(), *(cell.split("/", 1)[-1] for cell in row[2:])][:columns] for row in rows]


def test_every_triton_kernel_is_in_the_table() -> None:
    """A kernel is what a launcher indexes with a grid."""
    import re

    launched = set()
    for path in (ROOT / "kernels" / "mllmrec_kernels").rglob("gpu*.py"):
        launched |= set(re.findall(r"(\w+)\[\(", path.read_text()))
    assert launched == {kernel.function.__name__ for kernel in KERNELS}
