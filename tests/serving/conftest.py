"""A finished run of the default model on the small shop."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec import load_config
from mllmrec.dataset import Dataset
from mllmrec.pipeline import run

QUICK = ("describe.images=false", "encode.max_pieces=16", "model.factors=8", "recommend.top=5")


@pytest.fixture(scope="session")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder."""
    folder = tmp_path_factory.mktemp("finished")
    run(dataset, folder / "run", load_config(assignments=QUICK), cache=folder / "c.sqlite")
    return folder / "run"
