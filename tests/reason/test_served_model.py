"""The chat server engine against a real server: `transformers serve` with a tiny multimodal model on the CPU.

Runs where `transformers[serving]` is installed.
"""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from mllmrec.engine_config import ChatServerConfig
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.openai import ChatServer
from mllmrec.reason.engines.openai_format import chat_body
from tests.reason import tiny_models
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "openai", "accelerate"))),
    reason="a real server needs: pip install 'transformers[serving]'",
)
TOKENS = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_models.build("idefics3", tmp_path_factory.mktemp("served"))
    return folder


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    port, log = free_port(), tmp_path_factory.mktemp("log") / "server.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            address = f"http://localhost:{port}"
            assert wait_until(lambda: process.poll() is not None or _healthy(address), 240), log.read_text()
            assert process.poll() is None, log.read_text()
            yield f"{address}/v1"
        finally:
            process.terminate()
            process.wait(20)


def _healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[ChatRequest]:
    folder, generator, made = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for n in range(6):
        Image.fromarray(generator.integers(0, 255, (80, 64, 3), dtype=np.uint8)).save(folder / f"{n}.png")
        made.append(ChatRequest(f"describe the item in the image {n}.", images=(folder / f"{n}.png",)))
    return made


def test_a_real_server_answers_as_the_model_does_in_this_process(
    served: str, model: Path, requests: list[ChatRequest]
) -> None:
    config = ChatServerConfig(base_url=served, model=str(model), max_tokens=TOKENS, concurrency=3)
    engine = ChatServer(config)
    replies = engine.complete(requests)
    wanted = [in_process(model, config, request) for request in requests]
    assert replies == wanted
    assert len({reply.text for reply in replies}) > 1  # the picture or the text makes a difference
    assert engine.complete(requests[::-1]) == wanted[::-1]
    assert f"model={str(model)!r}" in engine.fingerprint


def in_process(folder: Path, config: ChatServerConfig, request: ChatRequest) -> Reply:
    """The greedy continuation by transformers itself, of the very pixels that are sent."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    picture, text = chat_body(request, config)["messages"][0]["content"]
    pixels = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].split(",")[1])))
    turn = {"role": "user", "content": [{"type": "image"}, text]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    # The template has put the beginning of the text there already.
    inputs = processor(text=[prompt], images=[[pixels]], return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=config.max_tokens, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    spoken = processor.tokenizer.decode(new, skip_special_tokens=True).replace("\0", "").strip()
    return Reply(spoken, "length" if len(new) == config.max_tokens else "stop")


def test_text_alone_and_a_system_turn_are_answered(served: str, model: Path) -> None:
    engine = ChatServer(ChatServerConfig(base_url=served, model=str(model), max_tokens=TOKENS))
    replies = engine.complete([ChatRequest("a red shirt"), ChatRequest("a red shirt", system="be brief")])
    assert all(reply.finish in ("stop", "length") and reply.text for reply in replies)


def test_a_model_that_it_does_not_serve_is_refused(served: str) -> None:
    engine = ChatServer(ChatServerConfig(base_url=served, model="another", max_tokens=TOKENS))
    (reply,) = engine.complete([ChatRequest("a red shirt")])
    assert reply.finish == "failed" and "another" in reply.reason  # this server says 400, others 404
