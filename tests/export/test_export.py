"""What is exported of a run: vectors that serve the lists of `recommend`, and a model card that says what holds."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from mllmrec import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.export import write
from mllmrec.foundation import digests
from mllmrec.pipeline import run

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("describe.images=false", "encode.max_pieces=16", "train.epochs=2")
LEAK_FREE = ("model.kind=mllmrec", "profile.kind=mean", "recommend.top=5", *QUICK)


def made(dataset: Dataset, folder: Path, *settings: str) -> Path:
    run(dataset, folder / "run", load_config(assignments=[*LEAK_FREE, *settings]), cache=folder / "c.sqlite")
    return folder / "run"


@pytest.fixture(scope="module")
def leak_free(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(dataset, tmp_path_factory.mktemp("leak-free"))


@pytest.fixture(scope="module")
def leaky(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(dataset, tmp_path_factory.mktemp("leaky"), "profile.history=all")


def test_vectors_are_sealed_and_are_the_models(leak_free: Path, dataset: Dataset, tmp_path: Path) -> None:
    paths = write(leak_free, tmp_path, "vectors")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["files"] == {path.name: digests.hash_file(path) for path in paths if path.suffix != ".json"}
    assert (manifest["kind"], manifest["leaky"], manifest["score"]) == ("mllmrec", False, "inner product")
    tensors = load_file(tmp_path / "vectors.safetensors")
    for side, ids in (("users", dataset.users), ("items", dataset.item_ids)):
        array = np.load(tmp_path / f"{side}.npy")
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, tensors[side])
        np.testing.assert_array_equal(array, np.load(leak_free / "train" / f"{side}.npy"))
        assert pl.read_parquet(tmp_path / f"{side}.parquet")["id"].to_list() == ids.to_list()


def test_the_guides_example_serves_what_recommend_writes(
    leak_free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(leak_free, tmp_path / "vectors", "vectors")
    monkeypatch.chdir(tmp_path)
    plain, *with_index = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "vectors.md").read_text(), flags=re.DOTALL)
    wanted = pl.read_parquet(leak_free / "recommend" / "recommendations.parquet").group_by("user").agg("item")
    names: dict[str, object] = {}
    exec(plain, names)
    served = [names]
    for library, block in zip(("faiss", "usearch"), with_index, strict=True):
        if importlib.util.find_spec(library):
            exec(block, names := dict(names))
            exec(re.search(r"def recommend.*?\n\n", plain, flags=re.DOTALL)[0], names)
            served.append(names)
    for names in served:
        for user, items in wanted.iter_rows():
            assert names["recommend"](user, top=5) == items


def test_the_default_models_vectors_serve_nearly_what_recommend_writes(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*QUICK, "recommend.top=5"]
    run(dataset, tmp_path / "run", load_config(assignments=settings), cache=tmp_path / "c.sqlite")
    overlaps = {}
    monkeypatch.chdir(tmp_path)
    plain = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "vectors.md").read_text(), flags=re.DOTALL)[0]
    wanted = pl.read_parquet("run/recommend/recommendations.parquet").group_by("user").agg("item")
    for rank in (4, 59):  # of 60 items
        write(tmp_path / "run", tmp_path / "vectors", "vectors", rank=rank)
        error = json.loads(Path("vectors/manifest.json").read_text())["error"]
        names: dict[str, object] = {}
        exec(plain, names)
        served = {user: names["recommend"](user, top=5) for user, _ in wanted.iter_rows()}
        overlaps[rank] = np.mean([len({*served[user]} & {*items}) / len(items) for user, items in wanted.iter_rows()])
        assert error["rank"] == rank and error["users"] == dataset.n_users
        assert 0 <= error["overlap"] <= error["candidates"] <= 1
        overlaps[rank, "stated"] = error["overlap"]
    assert overlaps[59] > 0.99 and overlaps[59, "stated"] > 0.99  # all but one of the singular values
    assert overlaps[4] < overlaps[59] and overlaps[4, "stated"] < overlaps[59, "stated"]


def test_a_ridge_has_vectors_and_a_card(dataset: Dataset, tmp_path: Path) -> None:
    ridge = made(dataset, tmp_path, "model.kind=ridge")
    write(ridge, tmp_path / "v", "vectors", rank=59)
    assert json.loads((tmp_path / "v" / "manifest.json").read_text())["error"]["score_rmse"] < 0.05
    assert "item-graph ridge" in write(ridge, tmp_path / "c", "card")[0].read_text()


def test_a_card_has_metadata_intervals_and_the_way_back(leak_free: Path, tmp_path: Path) -> None:
    (path,) = write(leak_free, tmp_path, "card")
    card = ModelCard.load(path)
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    means = json.loads((leak_free / "evaluate" / "metrics.json").read_text())["metrics"]["test"]["MLLMRec"]
    assert results == {f"{name}_at_20": round(means[f"{name}@20"], 4) for name in ("recall", "ndcg")}
    for model in ("popularity", "content, untrained", "item-kNN", "MLLMRec"):
        assert re.search(rf"^\| {model} \| 0\.\d+ \[0\.\d+, 0\.\d+\] \|", card.text, flags=re.MULTILINE)
    assert "epochs = 2" in card.text
    assert "threshold" not in card.text  # a default
    assert "LEAKY" not in card.content


def test_a_leaky_run_says_so_in_every_name(leaky: Path, tmp_path: Path) -> None:
    (card,) = write(leaky, tmp_path, "card")
    assert card.name == "README.LEAKY.md"
    assert "> **LEAKY.**" in card.read_text()
    vectors = [path.name for path in write(leaky, tmp_path / "v", "vectors")]
    assert all("LEAKY" in name for name in vectors if name != "manifest.json")
    assert json.loads((tmp_path / "v" / "manifest.json").read_text())["leaky"] is True


def test_a_dataset_is_no_run(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a dataset, and vectors are of a trained model; name a run"):
        write(dataset.folder, tmp_path, "vectors")
