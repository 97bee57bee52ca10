"""An encoder without a model, in the place of the real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mllmrec.foundation import digests


class HashEncoder:
    """An encoder without a model: a text's vector is drawn from its hash."""

    def __init__(self, config: Any) -> None:
        self._config = config

    @staticmethod
    def identity(config: Any) -> str:
        """Return what its vectors depend on."""
        return "hash"

    def fit(self, parts: Sequence[str]) -> tuple[str, int]:
        """Return the text as it is encoded, and how much was cut from it."""
        return " ".join(parts), 0

    def encode(self, texts: Sequence[str], parts: Path, progress: Any, label: str, blocks: Any = None) -> Any:
        """Return unit vectors, float32 [n, 8]."""
        seeds = [int(digests.hash_bytes(text.encode("utf-8", "replace"))[:8], 16) for text in texts]
        rows = np.array([np.random.default_rng(seed).standard_normal(8) for seed in seeds], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@contextmanager
def hash_encoder() -> Iterator[None]:
    """Encode by HashEncoder inside the block."""
    with (
        patch("mllmrec.features.encode.Encoder", HashEncoder),
        patch("mllmrec.pipeline.Encoder", HashEncoder),
        patch("mllmrec.pipeline.check_encoder", lambda config: None),
    ):
        yield
