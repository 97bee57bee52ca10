"""The encoder on OpenVINO and ONNX Runtime: the vectors of torch where it runs, one line where it cannot."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from mllmrec.config import EncodeConfig, load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import EngineError
from mllmrec.features.encoder import Encoder, check_encoder
from mllmrec.foundation import converted_model as converted
from mllmrec.foundation.converted_model import Backend, cache_folder, missing
from mllmrec.foundation.progress import silent
from mllmrec.pipeline import run

BACKENDS = get_args(Backend)
# Both compute in float32; 1e-5 is a hundred roundings of it at unit length.
TOLERANCE = 1e-5


def texts(count: int) -> list[str]:
    words = [
        "red",
        "blue",
        "linen",
        "steel",
        "round",
        "tiny",
        "shirt",
        "kettle",
        "drill",
        "bit",
        "case",
        "of",
        "with",
        "for",
    ]
    drawn = np.random.default_rng(0)
    return [" ".join(drawn.choice(words, size=int(drawn.integers(1, 60)))) for _ in range(count)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_vectors_are_those_of_torch_and_a_model_is_converted_once(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing(backend):
        pytest.skip(reason)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = texts(150)
    exact = Encoder(EncodeConfig()).encode(asked, tmp_path / "parts", silent, "x")
    fast = Encoder(EncodeConfig(backend=backend)).encode(asked, tmp_path / "parts", silent, "x")
    assert 0 < np.abs(fast - exact).max() <= TOLERANCE  # 0 would mean that torch computed both
    (made,) = [folder for folder in cache_folder().iterdir() if folder.is_dir()]
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    again = Encoder(EncodeConfig(backend=backend)).encode(asked, tmp_path / "others", silent, "x")
    assert again.tobytes() == fast.tobytes()
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*")} == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_backend_stops_a_run_before_its_first_stage(
    backend: Backend, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted, "_version", lambda package: "")
    with pytest.raises(EngineError, match=rf'encode.backend = "{backend}": needs optimum-.*pip install .mllmrec\['):
        run(dataset, tmp_path / "run", load_config(None, [f"encode.backend={backend}"]), cache=tmp_path / "c.sqlite")
    assert not (tmp_path / "run").exists()


def test_versions_that_do_not_go_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        converted, "_version", {"optimum-intel": "2.2.0", "openvino": "1", "transformers": "5.23.0"}.get
    )
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _: ["nncf>=3", "transformers<5.6,>=4.51", 'transformers<5; extra == "quality"'],
    )
    with pytest.raises(EngineError, match=r"optimum-intel 2.2.0 wants transformers <5.6,>=4.51, and transformers 5.23"):
        check_encoder(EncodeConfig(backend="openvino"))
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: None)
    monkeypatch.setitem(converted._MODULE, "openvino", "no.such.module")
    with pytest.raises(EngineError, match=r"needs optimum-intel, which does not import \(No module named 'no'\)"):
        check_encoder(EncodeConfig(backend="openvino"))
    with pytest.raises(EngineError, match=r"runs on the CPU, and encode.device = .cuda. asks for a GPU"):
        check_encoder(EncodeConfig(backend="onnx", device="cuda"))


def test_a_conversion_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def convert(folder: Path) -> None:
        assert not list(folder.iterdir())  # what an earlier attempt left is gone
        (folder / "half").write_text("x")
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted.converted("onnx", {"model": "a"}, convert)
    assert not [path for path in cache_folder().iterdir() if path.is_dir()]
    calls[0].mkdir()
    (calls[0] / "left by a kill").touch()
    made = [converted.converted("onnx", {"model": "a"}, convert)]
    assert converted.converted("onnx", {"model": "a"}, convert) == made[0] and len(calls) == 2
    made.append(converted.converted("openvino", {"model": "a"}, convert))
    made.append(converted.converted("onnx", {"model": "b"}, convert))
    monkeypatch.setattr(converted, "_version", lambda package: "another")
    made.append(converted.converted("onnx", {"model": "a"}, convert))
    assert len(set(made)) == 4
