"""A run of any size, made up but written through the functions that write real ones: for time and size alone."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from mllmrec_kernels import CSR, normalize
from PIL import Image

from mllmrec.config import load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset import store as dataset_store
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.features.encode import Cuts, Features, normalize_rows
from mllmrec.foundation.lazy_table import LazyTable
from mllmrec.foundation.progress import silent
from mllmrec.graph.item_graph import GraphStatistics, ItemGraph
from mllmrec.models import MLLMRec
from mllmrec.models.fitting import FittedModel, read_model
from mllmrec.models.mllmrec import MLLMRecConfig
from mllmrec.models.scoring import VectorScorer
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.recommend import Recommendations
from mllmrec.runs import open_run
from mllmrec.training.checkpoint import Epoch

WIDTH, TOPICS, PICTURES, LISTED = 384, 500, 200, 20
MODELS = ("popularity", "content, untrained", "item-kNN", "MLLMRec")


def make_large_run(folder: Path, *, items: int, users: int, interactions: int) -> Path:
    """Write folder/dataset and folder/run; the run."""
    generator = np.random.default_rng(0)
    dataset = _dataset(folder, generator, items, users, interactions)
    with open_run(
        folder / "run", dataset, load_config(None, ["model.kind=mllmrec"]), "mllmrec run dataset --out run"
    ) as run:
        features = _features(dataset, generator)
        evaluation = _evaluation(dataset, generator)
        run.step("describe", {}, Descriptions.load, lambda _: _descriptions(dataset))
        run.step("profile", {}, Profiles.load, lambda _: _profiles(dataset, generator))
        run.step("encode", {}, Features.load, lambda _: features)
        run.step("graph", {}, ItemGraph.load, lambda _: _graph(dataset, features))
        run.step("train", {}, partial(read_model, MLLMRecConfig()), lambda _: _trained(dataset, generator))
        run.step("evaluate", {}, Evaluation.load, lambda _: evaluation)
        run.step("recommend", {}, Recommendations.load, lambda _: _recommendations(dataset, generator))
    return folder / "run"


def _dataset(folder: Path, generator: np.random.Generator, items: int, users: int, interactions: int) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(PICTURES):
        paths.append(str(folder / f"{n}.jpg"))
        noise = generator.integers(0, 255, (18, 14, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((210, 270), Image.Resampling.BICUBIC).save(paths[-1])
    popular = 1 / (1 + generator.permutation(items)) ** 0.8
    drawn = pl.DataFrame(
        {
            "user": np.sort(generator.integers(users, size=interactions).astype(np.int32)),
            "item": generator.choice(items, interactions, p=popular / popular.sum()).astype(np.int32),
        }
    ).unique(["user", "item"], maintain_order=True)
    table = pl.DataFrame(
        {
            "id": [f"item-{n:07d}" for n in range(items)],
            "title": [
                f"{'long ' * 200 if n % 997 == 0 else ''}Thing {n % 7919} of line {n % 31}" for n in range(items)
            ],
            "brand": [f"brand {n % 211}" for n in range(items)],
            "categories": [["All", f"group {n % TOPICS}"] for n in range(items)],
            "description": [f"Words {n % 1009} and more words {n % 757}. " * 5 for n in range(items)],
            "price": [None] * items,
            "images": [[paths[n % PICTURES]] for n in range(items)],
            "image_urls": [[]] * items,
        },
        schema_overrides={"price": pl.Float64, "image_urls": pl.List(pl.String)},
    )
    dataset_store.save(
        folder / "dataset",
        users=pl.Series([f"user-{n:07d}" for n in range(users)]),
        items=table,
        interactions=drawn.with_columns(
            rating=pl.lit(None, pl.Float64),
            timestamp=pl.Series(np.arange(len(drawn))),
            split=pl.Series(generator.choice([0, 1, 2], len(drawn), p=[0.8, 0.1, 0.1]).astype(np.int8)),
        ),
        features={},
        rejected=(),
        facts={
            "name": "large",
            "kind": "made up",
            "category": "",
            "options": {},
            "split": {},
            "steps": {"interactions read": interactions},
            "rejected": 0,
            "warnings": [],
        },
        force=True,
        progress=silent,
    )
    return load(folder / "dataset")


def _descriptions(dataset: Dataset) -> Descriptions:
    said = [f"A round thing of colour {n % 97} with pattern {n % 89} stands in it." for n in range(dataset.n_items)]
    return Descriptions(pl.DataFrame({"id": dataset.item_ids, "description": said, "status": "ok", "reason": ""}))


def _profiles(dataset: Dataset, generator: np.random.Generator) -> Profiles:
    groups = generator.integers(TOPICS, size=(dataset.n_users, 8))
    texts = [f"Likes {' and '.join(f'group {g} with words {g}' for g in own)}, of every kind." for own in groups]
    table = pl.DataFrame({"id": dataset.users, "profile": texts, "status": "ok", "reason": ""})
    return Profiles(table, dataset.train_digest, "train")


def _features(dataset: Dataset, generator: np.random.Generator) -> Features:
    topics = generator.standard_normal((TOPICS, WIDTH)).astype(np.float32)

    def near(n: int) -> np.ndarray:
        noise = generator.standard_normal((n, WIDTH), dtype=np.float32)
        return normalize_rows(topics[np.arange(n) % TOPICS] + np.float32(0.6) * noise)

    return Features(near(dataset.n_items), near(dataset.n_users), dataset.train_digest, Cuts(0, 0, 0, 0))


def _graph(dataset: Dataset, features: Features) -> ItemGraph:
    """Ten neighbours of an item's own topic, and the items that lie next to it in somebody's history."""
    n, past = dataset.n_items, dataset.histories("train")
    here = np.repeat(np.arange(n), 10)
    topical = (here + TOPICS * (1 + np.tile(np.arange(10), n))) % n
    semantic = sp.csr_array((np.ones(len(here), np.float32), (here, topical)), shape=(n, n))
    shared = sp.csr_array(
        (np.full(len(past.items) - 1, 0.1, np.float32), (past.items[:-1], past.items[1:])), shape=(n, n)
    )
    shared.data = np.minimum(shared.data, np.float32(0.5))
    both = semantic.maximum(semantic.T) + shared.maximum(shared.T)
    adjacency = CSR.from_scipy(both.tocsr())
    return ItemGraph(adjacency, normalize(adjacency), past.digest, GraphStatistics(adjacency.nnz, 0, 0, 0, 0))


def _trained(dataset: Dataset, generator: np.random.Generator) -> FittedModel:
    users, items = (generator.standard_normal((n, 64), dtype=np.float32) for n in (dataset.n_users, dataset.n_items))
    curve = tuple(Epoch(n, 0.7 / n, 0.1 - 0.05 / n, 0.05 - 0.02 / n) for n in range(1, 201))
    model = MLLMRec()
    model.vectors, model.parameters, model.curve, model.best_epoch = VectorScorer(users, items), {}, curve, 180
    return FittedModel(model)


def _evaluation(dataset: Dataset, generator: np.random.Generator) -> Evaluation:
    frames, means, users, heldout = [], {}, {}, pl.DataFrame()
    for split in ("valid", "test"):
        held = dataset.matrix(split)
        judged = np.flatnonzero(np.diff(held.indptr) > 0)
        users[split], means[split] = len(judged), {}
        heldout = pl.DataFrame(
            {"user": dataset.users.gather(held.rows()), "item": dataset.item_ids.gather(held.indices)}
        )
        for n, model in enumerate(MODELS):
            ranks = (dataset.n_items * generator.random(held.nnz) ** (6 + n)).astype(np.int32)
            heldout = heldout.with_columns(pl.Series(model, ranks))
            values = {name: value[judged] for name, value in metrics.per_user(ranks, held.indptr, (10, 20)).items()}
            means[split][model] = metrics.mean(values)
            frames.append(pl.DataFrame({"id": dataset.users.gather(judged), "split": split, "model": model, **values}))
    return Evaluation(False, means, users, LazyTable.of(pl.concat(frames)), LazyTable.of(heldout))


def _recommendations(dataset: Dataset, generator: np.random.Generator) -> Recommendations:
    def lists(owner: str, owners: pl.Series, other: str, k: int) -> pl.DataFrame:
        n = len(owners)
        drawn = (dataset.n_items * generator.random(n * k) ** 2).astype(np.int64)
        ranks = np.tile(np.arange(1, k + 1, dtype=np.int32), n)
        return pl.DataFrame(
            {
                owner: owners.gather(np.repeat(np.arange(n), k)),
                "rank": ranks,
                other: dataset.item_ids.gather(drawn),
                "score": (1 / ranks).astype(np.float32),
            }
        )

    users = lists("user", dataset.users, "item", LISTED).with_columns(source=pl.lit("model"))
    return Recommendations(users, lists("item", dataset.item_ids, "similar", 10), "parquet")


if __name__ == "__main__":
    began = time.perf_counter()
    made = make_large_run(Path(sys.argv[1]), items=100_000, users=100_000, interactions=1_200_000)
    sys.stdout.write(f"{made} made in {time.perf_counter() - began:.0f} s\n")
