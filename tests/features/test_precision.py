"""The encoder in bfloat16: near float32, kept apart from it, refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mllmrec.config import EncodeConfig
from mllmrec.errors import EngineError
from mllmrec.features.encoder import Encoder, check_encoder
from mllmrec.foundation.progress import silent

WORDS = ["red", "blue", "linen", "steel", "round", "tiny", "shirt", "kettle", "drill", "bit", "case", "with", "for"]


def texts(count: int) -> list[str]:
    drawn = np.random.default_rng(0)
    return [" ".join(drawn.choice(WORDS, size=int(drawn.integers(2, 40)))) for _ in range(count)]


def test_vectors_of_bfloat16_are_near_those_of_float32(tmp_path: Path) -> None:
    sentences = texts(60)
    exact = Encoder(EncodeConfig()).encode(sentences, tmp_path, silent, "x")
    vectors = Encoder(EncodeConfig(precision="bfloat16")).encode(sentences, tmp_path, silent, "x")  # the same folder
    assert vectors.dtype == np.float32 and not np.array_equal(vectors, exact)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float((vectors * exact).sum(axis=1).mean()) >= 0.9995


def test_a_precision_that_a_backend_lacks_is_one_line() -> None:
    with pytest.raises(EngineError, match='precision = "bfloat16" is for encode.backend=torch; .* with onnx'):
        check_encoder(EncodeConfig(precision="bfloat16", backend="onnx"))
    check_encoder(EncodeConfig(precision="bfloat16"))
