"""The OpenVINO route of the transformers engine: the tokens of the torch route; `make test-openvino` runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.converted_model import cache_folder, missing
from mllmrec.reason.engine import ChatRequest
from mllmrec.reason.engines import transformers_model
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from tests.reason.tiny_models import noise_pictures

Tiny = Callable[[str], Path]

if reason := missing("openvino"):
    pytest.skip(f"OpenVINO: {reason}", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def chat(folder: Path, backend: str, **settings: Any) -> TransformersChat:
    config = TransformersConfig(backend=backend, device="auto", repetition_penalty=1.3, **settings)
    return TransformersChat(TransformersModel(str(folder), config), max_new_tokens=12, seed=0)


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[ChatRequest]:
    """Requests of uneven length with one picture each, of uneven size."""
    files = noise_pictures(tmp_path_factory.mktemp("pictures"), 5)
    return [ChatRequest("what is it " * (1 + n), "be brief" if n % 2 else "", (file,)) for n, file in enumerate(files)]


@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl", "qwen3_vl", "llava", "llama"])
def test_openvino_gives_the_tokens_of_torch(family: str, tiny: Tiny, requests: list[ChatRequest]) -> None:
    folder = tiny(family)
    if family == "llama":
        requests = [replace(request, images=()) for request in requests]
    elif family.startswith("qwen"):
        # The tiny tokenizer is of no class of its own, and transformers 4 insists on that of the family.
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "Qwen2TokenizerFast"}))
    fast = chat(folder, "openvino")
    replies = fast.complete(requests)
    assert replies == chat(folder, "torch").complete(requests)
    assert replies == [fast.complete([request])[0] for request in requests]
    assert len({reply.text for reply in replies}) > 2, replies


def test_a_model_is_converted_once_and_compressed_weights_are_another(tiny: Tiny, requests: list[ChatRequest]) -> None:
    exact, small = chat(tiny("idefics3"), "openvino"), chat(tiny("idefics3"), "openvino", quantize="int8")
    assert len({exact.fingerprint, small.fingerprint, chat(tiny("idefics3"), "torch").fingerprint}) == 3
    replies = exact.complete(requests)
    known = set(cache_folder().iterdir())
    assert chat(tiny("idefics3"), "openvino").complete(requests) == replies
    assert set(cache_folder().iterdir()) == known
    assert {reply.finish for reply in small.complete(requests)} <= {"stop", "length"}
    assert len([folder for folder in set(cache_folder().iterdir()) - known if folder.is_dir()]) == 1


def test_what_openvino_cannot_do_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="runs on the CPU in float32 with a cache of its own"):
        chat(tiny("idefics3"), "openvino", dtype="bfloat16")
    with pytest.raises(EngineError, match="reads a model's states, which OpenVINO keeps to itself"):
        _ = chat(tiny("idefics3"), "openvino").states_fingerprint
    with pytest.raises(EngineError, match="converts no janus model"):
        transformers_model.check_backend(
            {"model_type": "janus", "vision_config": {}}, TransformersConfig(backend="openvino")
        )
    monkeypatch.setattr(transformers_model, "version", {"transformers": "99", "optimum-intel": "2"}.get)
    with pytest.raises(EngineError, match=r"converts idefics3 models up to transformers [\d.]+, and 99 is installed"):
        chat(tiny("idefics3"), "openvino")
