"""The transformers engine beside the loop that one writes first: a request at a time through `generate`.

A tiny model with random weights stands in for a real one: what is measured is the engine, that is batching,
preprocessing ahead of the model, and decoding of pictures; not the arithmetic of seven billion parameters. Only the
ratio of the two rows means anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from mllmrec.engine_config import TransformersConfig
from mllmrec.reason.engine import ChatRequest
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from tests.reason.tiny_models import build

ITEMS, NEW_TOKENS = 64, 48


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[ChatRequest]:
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    asked = []
    for n in range(ITEMS):
        pixels = generator.integers(0, 255, (300 + n, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.jpg")
        words = "Describe the item in the picture for a buyer. " * (2 + n % 3)
        asked.append(ChatRequest(words, "", (folder / f"{n}.jpg",)))
    return asked


@pytest.fixture(scope="module", params=["idefics3", "qwen2_5_vl"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TransformersChat:
    folder = build(request.param, tmp_path_factory.mktemp(request.param))
    made = TransformersChat(
        TransformersModel(str(folder), TransformersConfig(repetition_penalty=1.2)), max_new_tokens=NEW_TOKENS, seed=0
    )
    _ = made._model.loaded  # loading is no part of what is timed
    return made


def one_at_a_time(engine: TransformersChat, requests: list[ChatRequest]) -> list[str]:
    """The plain loop, over the same weights."""
    model, processor = engine._model.loaded.model, engine._model.loaded.processor
    texts = []
    for request in requests:
        turn: dict[str, Any] = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request.text}]}
        prompt = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        with Image.open(request.images[0]) as image:
            inputs = processor(
                text=[prompt], images=[[image.convert("RGB")]], return_tensors="pt", add_special_tokens=False
            )  # the template has put them there
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=1.2)
        new = made[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize("who", ["mllmrec", "generate, one at a time"])
def test_reason(who: str, benchmark: BenchmarkFixture, engine: TransformersChat, requests: list[ChatRequest]) -> None:
    family = engine._model.settings["model_type"]
    benchmark.group = f"reason: {ITEMS} pictures, {NEW_TOKENS} tokens, tiny {family}, CPU"
    if who == "mllmrec":
        replies = benchmark.pedantic(engine.complete, (requests,), rounds=3)
        assert [reply.text for reply in replies[:3]] == one_at_a_time(engine, requests[:3])
    else:
        benchmark.pedantic(one_at_a_time, (engine, requests), rounds=3)
