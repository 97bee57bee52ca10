"""Describe and profile in blocks: the answers of one process, models that workers hold, pictures that they lack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import MismatchError
from mllmrec.reason import block_engines
from mllmrec.reason.block_engines import BlockChat, BlockDescriber, BlockProfiler, with_workers
from mllmrec.reason.engine import ChatRequest, HistoryItem, Item, Readout
from mllmrec.reason.engines.extractive import ExtractiveDescriber, ExtractiveProfiler
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.history_prompts import HiddenProfiler
from tests.blocks.in_process import InProcess, blocks_in
from tests.reason import tiny_models


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Seventy items; the second one's picture is none, and the third one's is not there."""
    made = []
    for n in range(70):
        path = tmp_path / f"{n}.png"
        Image.new("RGB", (40, 30), (3 * n, 200 - n, 90)).save(path)
        made.append(Item(f"kettle {n}", "Öre", ("home", f"kind {n % 5}"), "boils \ud800 water", 1.5 * n, (path,)))
    made[1].images[0].write_bytes(b"no picture")
    made[2].images[0].unlink()
    return made


def test_extractive_engines_answer_in_blocks_as_here(items: list[Item], tmp_path: Path) -> None:
    blocks = blocks_in(tmp_path / "parts")
    describer = with_workers(ExtractiveDescriber(), blocks)
    assert isinstance(describer, BlockDescriber) and describer.batch_size == 64 * 64
    described = describer.describe(items)
    assert described == ExtractiveDescriber().describe(items)
    assert [answer.status for answer in described[:4]] == ["ok", "text-only", "text-only", "ok"]
    assert blocks.counts["blocks"] == 2
    texts = [answer.text for answer in described]
    here = ExtractiveProfiler(items, texts, terms=3)
    profiler = with_workers(here, blocks)
    assert isinstance(profiler, BlockProfiler) and profiler.fingerprint == here.fingerprint
    random = np.random.default_rng(0)
    histories = [[HistoryItem(int(n), texts[n], None) for n in random.choice(70, 8, replace=False)] for _ in range(300)]
    histories[5] = [replace(entry, time=n) for n, entry in enumerate(histories[5])]
    assert profiler.profile(histories) == here.profile(histories) and blocks.counts["blocks"] == 4
    assert profiler.material(histories[5]) == here.material(histories[5])


def test_a_worker_that_lacks_a_picture_refuses(items: list[Item]) -> None:
    text = block_engines._as_text({}, items[3].images)
    assert len(block_engines._values([text])) == 1
    items[3].images[0].unlink()
    with pytest.raises(MismatchError, match="a worker does not find the picture .*3.png; put the dataset where every"):
        block_engines._values([text])


def test_models_that_workers_hold_reply_as_here(tmp_path: Path) -> None:
    folder = tiny_models.build("llama", tmp_path / "model")
    model = TransformersModel(str(folder), TransformersConfig(device="cpu", dtype="float32", batch_size=2))
    chat = TransformersChat(model, max_new_tokens=6, seed=3)
    words = tiny_models._WORDS
    requests = [ChatRequest(f"{words[n]} {words[2 * n]}", system="write") for n in range(20)]
    blocks = blocks_in(tmp_path / "parts")
    held = BlockChat(chat, blocks)
    replies = held.complete(requests)
    assert replies == chat.complete(requests) and len({reply.text for reply in replies}) > 5
    assert blocks.counts["blocks"] == 3 and held.fingerprint == chat.fingerprint
    readouts = (Readout(), Readout(1, "last"))
    states = chat.hidden_states(requests, readouts)
    assert np.allclose(held.hidden_states(requests, readouts), states, atol=1e-5) and held.depth == chat.depth
    assert held.complete([]) == [] and held.hidden_states([], readouts).shape == (2, 0, chat.width)
    assert isinstance(blocks.launcher, InProcess)
    functions = {json.loads(task)["function"].rpartition(":")[2] for task in blocks.launcher.tasks}
    assert functions == {"reply_block", "states_block"}
    profiler = with_workers(HiddenProfiler(chat, None, readouts[1]), blocks)  # type: ignore[arg-type]
    assert isinstance(profiler.model, BlockChat) and profiler.readout == readouts[1]
    assert with_workers(profiler, None) is profiler
    with pytest.raises(MismatchError, match="a worker's model is 'a', and the run's is 'b'"):
        block_engines._check("a", "b")
