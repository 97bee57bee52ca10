"""counter.cu: its results with threads of the CPU in place of a GPU's, its compilation by NVRTC, and on a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mllmrec_kernels.base import backend
from mllmrec_kernels.base.errors import BackendUnavailableError
from mllmrec_kernels.cooccurrence import MEASURES, cooccurrence_topk, gpu

from tests.kernels.sparse_cases import INTERACTIONS, Interactions, ids, random_interactions

# The large cases take a GPU: a barrier of CPU threads costs far more than what stands between two of them.
SMALL = [case for case in INTERACTIONS if case.make().nnz and case.make().n_columns <= 60]


def assert_same(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


class PoisonedNumPy:
    """NumPy whose `empty` is anything but."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 2**30, dtype)


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[..., None], ...]:
    compiler = shutil.which("g++") or pytest.skip("no C++ compiler: apt-get install g++")
    library = tmp_path_factory.mktemp("cuda") / "counter.so"
    shim = Path(__file__).with_name("cuda_on_cpu.cpp")
    macros = [f'-DSOURCE="{gpu.SOURCE}"', "-DTHREADS=4", "-DLANES=2"]
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", *macros, str(shim), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    loaded = ctypes.CDLL(str(library))

    def launch(name: str) -> Callable[..., None]:
        function = getattr(loaded, f"launch_{name}")
        kinds = {np.dtype(np.int32): ctypes.c_int, np.dtype(np.int64): ctypes.c_longlong}

        def as_c(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                return ctypes.c_void_p(value.ctypes.data)
            return ctypes.c_void_p(0) if value is gpu._NULL else kinds[value.dtype](int(value))

        return lambda blocks, arguments: function(ctypes.c_int(blocks), *map(as_c, arguments))

    return launch("transpose"), launch("count_rows")


@pytest.mark.parametrize("case", SMALL, ids=ids(SMALL))
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("window", [None, 7])
def test_the_cuda_source_equals_the_reference(
    launches: tuple, case: Interactions, measure: str, window: int | None
) -> None:
    user_items, times = case.make(), None if window is None else case.times()
    got = gpu.count(PoisonedNumPy(), *launches, user_items, case.k, measure, window, times, 2)
    wanted = cooccurrence_topk(user_items, case.k, measure=measure, window=window, times=times, backend="reference")
    assert_same(got, wanted)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_nvrtc_compiles_the_source(architecture: str) -> None:
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    source = gpu.SOURCE.read_bytes()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"counter.cu", 0, None, None) == 0
    options = [f"--gpu-architecture={architecture}", *gpu.OPTIONS]
    status = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    )
    log = ctypes.create_string_buffer(10_000)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    assert b"warning" not in log.value
    size = ctypes.c_size_t()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 0


def _nvrtc() -> ctypes.CDLL:
    """NVRTC from its wheel, which needs no driver."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for library in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            if "alt" not in library.name:
                return ctypes.CDLL(str(library))
    pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def test_without_a_device_one_line_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    for reason in ("no CUDA device is visible", "cupy is not installed"):
        monkeypatch.setattr(backend, "missing", lambda name, reason=reason: reason if name == "cupy" else "")
        with pytest.raises(BackendUnavailableError) as caught:
            cooccurrence_topk(random_interactions(9, 5, 2), 2, backend="cupy")
        assert str(caught.value) == f"backend 'cupy': {reason}; pip install 'mllmrec[cuda]'"


def test_cupy_without_a_driver_leaves_the_cpu_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy", reason="cupy is not installed: pip install 'mllmrec[cuda]'", exc_type=ImportError)
    if backend.available()["cupy"]:
        pytest.skip("a driver is here")
    assert backend.missing("cupy") == "no CUDA device is visible"
    user_items = random_interactions(9, 5, 2)
    assert_same(cooccurrence_topk(user_items, 2), cooccurrence_topk(user_items, 2, backend="reference"))


@pytest.mark.gpu
@pytest.mark.skipif(not backend.available()["cupy"], reason="cupy has no device: pip install 'mllmrec[cuda]'")
@pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("window", [None, 0, 7, 1000])
def test_on_a_gpu(case: Interactions, measure: str, window: int | None) -> None:
    user_items, options = case.make(), {"measure": measure, "window": window, "times": case.times()}
    wanted = cooccurrence_topk(user_items, case.k, **options, backend="reference")
    for max_bytes in (None, gpu.fixed_bytes(user_items, timed=True) + 8 * user_items.n_columns):
        assert_same(cooccurrence_topk(user_items, case.k, **options, backend="cupy", max_bytes=max_bytes), wanted)
