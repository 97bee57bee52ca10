"""Where real vectors come from: a file, a dataset, a run, or the text of the demo shop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllmrec.config import EncodeConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.synthetic_shop import catalogue_texts
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, normalise_rows, parts_of
from mllmrec.features.encoder import Encoder
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.describe import catalogue

DEMO_ITEMS = 2_000


@dataclass(frozen=True, slots=True)
class Source:
    """Real rows by name; `rows` reads or makes them."""

    name: str
    rows: Callable[[], Vectors]


def file_source(path: Path) -> Source:
    """The rows of a .npy file."""
    return Source(path.stem, lambda: file_vectors(path))


def demo_source(progress: Progress = silent) -> Source:
    """The text of the demo shop."""
    return Source("demo", lambda: demo_vectors(progress))


def file_vectors(path: Path) -> Vectors:
    """Unit rows from a .npy file, float32 [n, d]; zero rows are left out.

    Raises:
        InputError: no such file, not a matrix of numbers, or not finite.
    """
    array = storage.read_array(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} must hold floating [n, d]; got {array.dtype} of shape {array.shape}")
    rows = np.array(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise InputError(f"{path} holds NaN or infinity; mend or drop those rows")
    return _unit(rows)


def demo_vectors(progress: Progress = silent, *, items: int = DEMO_ITEMS) -> Vectors:
    """all-MiniLM-L6-v2 over the text of the generated shop, float32 [items, 384]; made once, then read again.

    Raises:
        EngineError: the encoder is not there; the text names the pip command.
    """
    return _encoded(catalogue_texts(items), progress)


def dataset_vectors(dataset: Dataset, progress: Progress = silent) -> Vectors:
    """The item features that came with the dataset, or its catalogue's text encoded, float32 [I, d].

    Rows of items without any text are zero.
    """
    if dataset.features:
        name = sorted(dataset.features)[0]
        return normalise_rows(np.array(storage.read_array(dataset.features[name]), dtype=np.float32))
    return _encoded([parts_of(item, "") for item in catalogue(dataset, images=False)], progress)


def _encoded(documents: Sequence[Sequence[str]], progress: Progress) -> Vectors:
    config = EncodeConfig()
    folder = _cache()
    name = storage.hash_value([Encoder.identity(config), [list(parts) for parts in documents]])
    kept = folder / f"{name}.npy"
    if kept.exists():
        return np.array(storage.read_array(kept))
    encoder = Encoder(config)
    texts = [encoder.fit(parts)[0] for parts in documents]
    vectors = encoder.encode(texts, folder / "parts", progress, "encode the source")
    storage.write_array(kept, vectors)
    return vectors


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return storage.make_folder(Path(base) / "mllmrec" / "measure")


def _unit(rows: Vectors) -> Vectors:
    kept = np.linalg.norm(rows, axis=1) > 0
    return normalise_rows(np.ascontiguousarray(rows[kept]))
