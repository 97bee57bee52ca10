"""A trained model's vectors with the shop's ids, in files that any search library loads.

    manifest.json        the kind of export, and the SHA-256 of every other file
    vectors.safetensors  users [U, d] and items [I, d], float32
    users.npy items.npy  the same, C order: as faiss, usearch and NumPy read it
    users.parquet        a row a vector: id, training_items; those with none are not known by their vector
    items.parquet        a row a vector: id, training_users: its popularity
    known.parquet        user, item: rows of the two tables above; items that a user has, and is not shown again

A user's score of an item is the inner product of their vectors. Models whose score is no inner product (the
item-graph ridge, the ensemble, EASE) have no such vectors and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, MismatchError
from mllmrec.foundation import digests, storage
from mllmrec.models import registry
from mllmrec.models.embedding_model import EmbeddingModel
from mllmrec.run_record import marked
from mllmrec.runs import Run

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


def export_vectors(view: Run, out: Path) -> list[Path]:
    """Write a run's vectors (see the module); return the paths written, the manifest last.

    Args:
        view: a run whose train stage is done.
        out: folder; a LEAKY run says so in every file name but the manifest's, and in that.

    Raises:
        InputError: the run's model has no vectors, or the run has not come so far.
        MismatchError: the vectors do not belong to the run's dataset.
        StorageError: the folder cannot be written.
    """
    kind, model = view.record["config"]["model"]["kind"], view.fitted
    if not isinstance(model, EmbeddingModel):
        others = ", ".join(name for name in registry.kinds() if issubclass(registry.find(name), EmbeddingModel))
        raise InputError(
            f"{view.folder} has no vectors to export: model.kind={kind} scores by item-item weights, not by inner "
            f"products; serve what mllmrec recommend writes, or export a run of a kind with vectors ({others})"
        )
    dataset = view.dataset
    if (len(model.users), len(model.items)) != (dataset.n_users, dataset.n_items):
        raise MismatchError(f"{view.folder} was trained on another dataset than {dataset.folder}; run it again")
    (storage.make_folder(out) / MANIFEST).unlink(missing_ok=True)  # until the files are whole, nothing vouches for them
    files = _write(model, dataset, out, leaky=view.leaky)
    manifest = _manifest(view, model) | {"files": {path.name: digests.hash_file(path) for path in files}}
    storage.write_json(out / MANIFEST, manifest)
    return [*files, out / MANIFEST]


def _write(model: EmbeddingModel, dataset: Dataset, out: Path, *, leaky: bool) -> list[Path]:
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


def _manifest(view: Run, model: EmbeddingModel) -> dict[str, Any]:
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
