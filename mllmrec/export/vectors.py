"""Write a trained model's vectors with the shop's ids, in files that any search library loads.

    manifest.json        the kind of export, and the SHA-256 of every other file
    vectors.safetensors  users [U, d] and items [I, d], float32
    users.npy items.npy  the same, C order: as faiss, usearch and NumPy read it
    users.parquet        a row per vector: id, training_items; those with none are not known by their vector
    items.parquet        a row per vector: id, training_users: its popularity
    known.parquet        user, item: rows of the two tables above; items that a user has, and is not shown again

A user's score of an item is the inner product of their vectors. Models that score by item-item weights (the ensemble,
the item-graph ridge, EASE, item-kNN) get vectors whose inner products are nearly their scores: see
models/inner_products.py. The manifest says how nearly, measured on the run's own users.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.inner_products import inner_products, measure_error
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.runs import Run
from mllmrec.runs.record import marked

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RANK = 256


def export_vectors(view: Run, out: Path, rank: int = RANK, progress: Progress = silent) -> list[Path]:
    """Write a run's vectors (see the module); return the paths written, the manifest last.

    Args:
        view: a run whose train stage is done.
        out: folder; a LEAKY run says so in every file name but the manifest's, and in that.
        rank: columns that item-item weights are factorized into; of no effect for models that have vectors.
        progress: called while weights are factorized.

    Raises:
        InputError: the run's model has no vectors and no weights, or the run has not come so far.
        MismatchError: the vectors do not belong to the run's dataset.
        StorageError: the folder cannot be written.
    """
    fitted, dataset = view.fitted, view.dataset
    model = inner_products(fitted, rank, progress)
    if (len(model.users), len(model.items)) != (dataset.n_users, dataset.n_items):
        raise MismatchError(f"{view.folder} was trained on another dataset than {dataset.folder}; run it again")
    exact = isinstance(fitted, EmbeddingModel)
    error = None if exact else measure_error(fitted, model, dataset.histories("all").user_items(), rank)
    (storage.make_folder(out) / MANIFEST).unlink(missing_ok=True)  # until the files are whole, nothing vouches for them
    files = _write(model, dataset, out, leaky=view.leaky)
    manifest = _manifest(view, model) | {
        "error": asdict(error) if error else None,
        "files": {path.name: digests.hash_file(path) for path in files},
    }
    storage.write_json(out / MANIFEST, manifest)
    return [*files, out / MANIFEST]


def _write(model: VectorScorer, dataset: Dataset, out: Path, *, leaky: bool) -> list[Path]:
    def path(name: str) -> Path:
        written.append(out / marked(name, leaky=leaky))
        return written[-1]

    written: list[Path] = []
    sides = {"users": np.ascontiguousarray(model.users), "items": np.ascontiguousarray(model.items)}
    with storage.atomic(path("vectors.safetensors")) as temporary:
        save_file(sides, temporary, metadata={"score": "inner product", "leaky": str(leaky)})
    for name, vectors in sides.items():
        storage.write_array(path(f"{name}.npy"), vectors)
    training = dataset.histories("train")
    items = np.bincount(training.items, minlength=dataset.n_items)
    users = np.diff(training.indptr)
    storage.write_table(path("users.parquet"), pl.DataFrame({"id": dataset.users, "training_items": users}))
    storage.write_table(path("items.parquet"), pl.DataFrame({"id": dataset.item_ids, "training_users": items}))
    storage.write_table(path("known.parquet"), dataset.interactions.select("user", "item"))
    return written


def _manifest(view: Run, model: VectorScorer) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "leaky": view.leaky,
        "dataset": view.record["dataset"],
        "train_digest": view.record["train_digest"],
        "kind": view.record["config"]["model"]["kind"],
        "seed": view.record["seed"],
        "score": "inner product",
        "dtype": "float32",
        "users": len(model.users),
        "items": len(model.items),
        "dimensions": model.items.shape[1],
        "versions": view.record["versions"],
    }
