"""The sentence encoder by torch, in bfloat16, and by the backends that are installed.

`python -m bench.bench_encoder WAY ...`. Texts are those of a dataset, or of a generated catalogue if none is named.
Ways go in turn, RUNS times, in one process and with the same threads. The table has medians, how many times faster than
torch, how far the vectors lie apart at most, their mean cosine, and how many of ten nearest neighbors stay. Converting
and loading are no part of the times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mllmrec.config import EncodeConfig
from mllmrec.dataset import PrepareOptions, load, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.features.encode import parts_of
from mllmrec.features.encoder import Encoder, Vectors
from mllmrec.foundation.progress import silent
from mllmrec.reason.describe import catalogue

RUNS, NEAREST = 3, 10


def documents(folder: Path | None, most: int, scratch: Path) -> list[list[str]]:
    """The parts of each item's text."""
    if folder is None:
        generate_catalogue(scratch / "shop", CatalogueOptions(items=most, users=most))
        prepare(scratch / "shop", scratch / "dataset", PrepareOptions(k_core=1))
        folder = scratch / "dataset"
    return [parts_of(item, "") for item in catalogue(load(folder), images=False)][:most]


def settings(name: str) -> EncodeConfig:
    """The settings of a way to compute."""
    return EncodeConfig(precision="bfloat16") if name == "bfloat16" else EncodeConfig.model_validate({"backend": name})


def neighbors(vectors: Vectors) -> list[set[int]]:
    """The ten nearest of each text."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    return [set(row) for row in np.argsort(-scores, axis=1)[:, :NEAREST].tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="+", choices=("bfloat16", "openvino", "onnx"))
    parser.add_argument("--dataset", type=Path, help="a folder that mllmrec prepare made")
    parser.add_argument("--items", type=int, default=400)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        parts = documents(asked.dataset, asked.items, scratch)
        encoders = {name: Encoder(settings(name)) for name in ("torch", *asked.backends)}
        texts = [encoders["torch"].fit(text)[0] for text in parts]
        seconds: dict[str, list[float]] = {backend: [] for backend in encoders}
        vectors = {}
        for run in range(RUNS):
            for backend, encoder in encoders.items():
                began = time.perf_counter()
                vectors[backend] = encoder.encode(texts, scratch / backend / str(run), silent, "")
                seconds[backend].append(time.perf_counter() - began)
    medians = {backend: statistics.median(times) for backend, times in seconds.items()}
    distinct = len(set(texts))
    exact = neighbors(vectors["torch"])
    for backend, median in medians.items():
        apart = np.abs(vectors[backend] - vectors["torch"]).max()
        cosine = float((vectors[backend] * vectors["torch"]).sum(axis=1).mean())
        own = neighbors(vectors[backend])
        kept = sum(len(a & b) for a, b in zip(own, exact, strict=True)) / sum(map(len, exact))
        print(
            f"encoder, {distinct:,} texts: {backend:10} {distinct / median:8.1f} texts/s   "
            f"torch's time over its own {medians['torch'] / median:5.2f}   largest difference {apart:.1e}   "
            f"mean cosine {cosine:.6f}   neighbors kept {kept:.4f}"
        )


if __name__ == "__main__":
    main()
