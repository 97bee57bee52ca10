"""Tiny models of five families, and a shop that one of them describes and profiles; made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.foundation.web import concurrency
from mllmrec.pipeline import run
from tests.reason.chat_runs import Tiny, config
from tests.reason.tiny_models import build


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of tiny models only wait for each other; on a busy machine they wait long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by family."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A shop of some twenty items and forty users, all of them with pictures."""
    folder = tmp_path_factory.mktemp("small")
    generate_catalogue(folder / "shop", CatalogueOptions(items=24, users=40, seed=4))
    return prepare(folder / "shop", folder / "dataset", PrepareOptions(k_core=2))


@pytest.fixture(scope="session")
def whole(small: Dataset, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has described and profiled that shop, and of its cache."""
    folder = tmp_path_factory.mktemp("whole")
    run(small, folder / "run", config(tiny("idefics3")), until="profile", cache=folder / "c.sqlite")
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat a failed request of the chat server engine at once, and through no proxy."""
    monkeypatch.setattr(concurrency, "_FIRST_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
