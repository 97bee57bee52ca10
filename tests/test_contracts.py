"""What holds of the tree as a whole: who imports whom, what is public, and what is never used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "mllmrec": ROOT / "mllmrec",
    "mllmrec_kernels": ROOT / "kernels" / "mllmrec_kernels",
    "mllmrec_cli": ROOT / "cli" / "mllmrec_cli",
    "mllmrec_bench": ROOT / "bench" / "mllmrec_bench",
}
FORBIDDEN = {
    "mllmrec_kernels": {"mllmrec", "mllmrec_bench", "mllmrec_cli"},
    "mllmrec": {"mllmrec_cli", "mllmrec_bench"},
    "mllmrec_bench": {"mllmrec_cli"},
    "mllmrec_cli": set(),
}


def modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGES[package].rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down_only(package: str) -> None:
    for path, tree in modules(package):
        assert not FORBIDDEN[package] & set(imported(tree)), path


@pytest.mark.parametrize("name", ["mllmrec", "mllmrec_kernels", "mllmrec.dataset"])
def test_public_names_are_there_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    # Constants and acronyms first, as the linter sorts them.
    assert module.__all__ == sorted(module.__all__, key=lambda public: (not public.isupper(), public))
    assert all(getattr(module, public) is not None for public in module.__all__)


LIGHT = [
    "mllmrec",
    "mllmrec.dataset",
    "mllmrec.pipeline",
    "mllmrec.models.ensemble",
    "mllmrec_kernels",
    "mllmrec_cli.main",
]


@pytest.mark.parametrize("name", [*LIGHT, "mllmrec_cli.main"])
def test_an_import_pulls_in_neither_torch_nor_transformers(name: str) -> None:
    script = f"import sys, {name}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_config_is_made_without_torch() -> None:
    script = "import sys; from mllmrec.config import load_config; load_config(None, []); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_line_waits_for_nothing_that_is_slow_to_load() -> None:
    """So that --help comes at once."""
    script = "import sys, mllmrec_cli.main; print(sorted(set(sys.argv[1:]) & set(sys.modules)))"
    slow = ["numpy", "polars", "pyarrow", "numba", "scipy", "PIL", "matplotlib", "mllmrec_kernels", "huggingface_hub"]
    done = subprocess.run([sys.executable, "-c", script, *slow], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_outer_folders_are_no_packages() -> None:
    assert not [path for path in ("kernels", "cli", "tests", "bench") if (ROOT / path / "__init__.py").exists()]
    assert all((folder / "py.typed").exists() for folder in PACKAGES.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_unpickled_evaluated_or_trusted(package: str) -> None:
    for path, tree in modules(package):
        assert not {"pickle", "marshal", "shelve", "dill"} & set(imported(tree)), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
