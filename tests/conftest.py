"""Fixtures that several test files share: a small shop on disk, its dataset, and the real data where it lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated shop of 60 items and 80 users."""
    folder = tmp_path_factory.mktemp("shop")
    generate_catalogue(folder, CatalogueOptions(items=60, users=80, seed=3))
    return folder


@pytest.fixture(scope="session")
def dataset(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The shop as a dataset."""
    return prepare(shop, tmp_path_factory.mktemp("data") / "dataset", PrepareOptions(k_core=2))


@pytest.fixture
def vectors(dataset: Dataset) -> np.ndarray:
    """Unit item vectors, float32 [I, 16]."""
    raw = np.random.default_rng(5).standard_normal((dataset.n_items, 16)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture
def real() -> Callable[[str], Path]:
    """A folder of real data; the test is skipped where it is absent."""

    def folder(name: str) -> Path:
        if not (REAL / name).is_dir():
            pytest.skip(f"real data {name!r} is not here")
        return REAL / name

    return folder
