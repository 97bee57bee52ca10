"""The transformers engine on tiny models: batched as alone, memory that runs out, models that cannot be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.batching import Batches, Capacity, Cost
from mllmrec.foundation.model_folder import locate
from mllmrec.reason.engine import ChatRequest
from mllmrec.reason.engines import transformers_model as loading
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.engines.transformers_processor import load_processor, render, shrink
from tests.reason.tiny_models import FAMILIES, noise_pictures

Tiny = Callable[[str], Path]


def chat(folder: Path, *, new: int = 8, **settings: Any) -> TransformersChat:
    config = TransformersConfig(**({"device": "cpu", "repetition_penalty": 1.3} | settings))
    return TransformersChat(TransformersModel(str(folder), config), max_new_tokens=new, seed=0)


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[ChatRequest]:
    """Requests of uneven length with none, one or two pictures of uneven size."""
    files = noise_pictures(tmp_path_factory.mktemp("pictures"), 4)
    texts = ["what is it", "describe the item in the picture, all of it, at some length", "", "one two three"]
    return [
        ChatRequest(f"{texts[n % 4]} {n}", "be brief" if n % 3 == 0 else "", tuple(files[: n % 3])) for n in range(7)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_is_unbatched_token_for_token(family: str, tiny: Tiny, requests: list[ChatRequest]) -> None:
    if family == "smolvlm":
        pytest.importorskip("num2words", reason="transformers loads no SmolVLM processor without it")
    engine = chat(tiny(family))
    together = engine.complete(requests)
    assert together == [engine.complete([request])[0] for request in requests]
    assert all(reply.text for reply in together), together
    # The pictures are seen: the same question over another picture gets another answer.
    blank = requests[1].images[0].with_name("blank.png")
    Image.new("RGB", (64, 64), "white").save(blank)
    assert engine.complete([replace(requests[1], images=(blank,))])[0] != together[1]
    states = engine.hidden_states(requests)[0]
    alone = np.vstack([engine.hidden_states([request])[0] for request in requests])
    assert states.shape == (len(requests), 64) and states.dtype == np.float32
    # Sums over other paddings round differently; 1e-5 is a hundred roundings of float32 at these sizes.
    np.testing.assert_allclose(states, alone, atol=1e-5)


def test_a_model_that_only_reads_writes_profiles_and_refuses_pictures(tiny: Tiny, requests: list[ChatRequest]) -> None:
    engine = chat(tiny("llama"))
    blind = [replace(request, images=()) for request in requests]
    replies = engine.complete(blind)
    assert replies == [engine.complete([request])[0] for request in blind]
    assert sum(bool(reply.text) for reply in replies) > 4 and engine.hidden_states(blind).shape == (1, len(blind), 64)
    refused = engine.complete(requests)
    assert [reply.finish == "failed" for reply in refused] == [bool(request.images) for request in requests]
    assert "reads no pictures" in next(reply.reason for reply in refused if reply.finish == "failed")


@pytest.mark.parametrize("family", ["llama", "llava", "qwen3_vl"])
def test_a_prompt_begins_once(family: str, tiny: Tiny, requests: list[ChatRequest]) -> None:
    engine = chat(tiny(family))
    tokenizer = engine._model.loaded.processor.tokenizer
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    prepared = engine._prepare([replace(requests[0], images=())], [0])
    ids = prepared.inputs["input_ids"][0].tolist()
    # A turn of the system, one of the user, and the beginning of the answer: the template begins three times.
    assert ids[0] == tokenizer.bos_token_id != ids[1] and ids.count(tokenizer.bos_token_id) == 3


def test_a_static_cache_and_sampling_with_a_seed_give_what_they_promise(
    tiny: Tiny, requests: list[ChatRequest]
) -> None:
    greedy = chat(tiny("idefics3")).complete(requests[:4])
    assert chat(tiny("idefics3"), kv_cache="static").complete(requests[:4]) == greedy
    sampled = [chat(tiny("idefics3"), temperature=1.0).complete(requests[:4]) for _ in range(2)]
    assert sampled[0] == sampled[1] != greedy


def test_a_bad_picture_fails_its_own_request_only(tiny: Tiny, requests: list[ChatRequest], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("<html>")
    engine = chat(tiny("idefics3"))
    good = engine.complete(requests)
    mixed = engine.complete([*requests[:5], ChatRequest("x", "", (tmp_path / "bad.jpg",)), *requests[5:]])
    assert [mixed[n] for n in range(8) if n != 5] == good
    assert mixed[5].finish == "failed" and "not a JPEG" in mixed[5].reason


def test_a_prompt_longer_than_the_model_reads_fails_alone(tiny: Tiny, requests: list[ChatRequest]) -> None:
    engine = chat(tiny("llava"))
    replies = engine.complete([*requests[:3], ChatRequest("word " * 2000)])
    assert [reply.finish == "failed" for reply in replies] == [False, False, False, True]
    assert "and with 8 new ones the model reads 4,096" in replies[3].reason


def test_memory_that_runs_out_halves_the_batch_and_changes_no_text(
    tiny: Tiny, requests: list[ChatRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = chat(tiny("llava"), batch_size=8)
    requests = [replace(request, images=()) for request in requests]
    expected = engine.complete(requests)
    model, sizes = engine._model.loaded.model, []
    generate = model.generate

    def tight(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", tight)
    assert engine.complete(requests) == expected
    assert max(sizes) > 2 and 2 in sizes and sizes.count(1) >= len(requests)
    monkeypatch.setattr(model, "generate", lambda **_: (_ for _ in ()).throw(MemoryError()))
    assert {reply.reason.split(";")[0] for reply in engine.complete(requests[:3])} == {
        "out of memory with this request alone"
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_batches_answer_as_alone_and_half_precision_runs(tiny: Tiny, requests: list[ChatRequest]) -> None:
    exact = chat(tiny("qwen2_5_vl"), device="cuda", dtype="float32")
    assert exact.complete(requests) == [exact.complete([request])[0] for request in requests]
    half = chat(tiny("qwen2_5_vl"), device="cuda")
    assert "dtype=bfloat16" in half.fingerprint
    assert all(reply.finish != "failed" for reply in half.complete(requests))
    assert np.isfinite(half.hidden_states(requests)).all()


def run_batches(count: int, capacity: Capacity, fits: Callable[[int], int]) -> tuple[list[int], list[int]]:
    tried: list[int] = []

    def compute(numbers: Sequence[int], prepared: list[int]) -> list[int]:
        assert list(numbers) == prepared
        tried.append(len(numbers))
        if len(numbers) > fits(len(tried)):
            raise MemoryError
        if 3 in numbers:
            raise ValueError("three")
        return [10 * n for n in numbers]

    batches = Batches(prepare=list, compute=compute, failed=lambda _: -1, free=lambda: None)
    return batches.run([Cost(n % 2, n) for n in range(count)], capacity), tried


def test_batches_shrink_grow_back_and_lose_nothing() -> None:
    found, tried = run_batches(200, Capacity(16, 10**6), lambda n: 2 if n < 12 else 99)
    assert found == [-1 if n == 3 else 10 * n for n in range(200)]
    assert tried[:4] == [16, 8, 4, 2] and 16 in tried[12:]
    assert run_batches(0, Capacity(4, 10), lambda _: 9) == ([], [])
    found, tried = run_batches(9, Capacity(4, 12), lambda _: 9)
    assert found == [-1 if n == 3 else 10 * n for n in range(9)]
    assert tried[0] == 1 and max(tried) <= 4  # the longest has eight tokens, so two of them are above twelve


@pytest.mark.parametrize(
    "quantize",
    # optimum-quanto compiles its int4 kernels when they are first used, which takes minutes.
    ["int8", pytest.param("int4", marks=pytest.mark.slow)],
)
def test_quantised_weights_answer_batched_as_alone(quantize: str, tiny: Tiny, requests: list[ChatRequest]) -> None:
    pytest.importorskip("optimum.quanto")
    engine = chat(tiny("idefics3"), quantize=quantize)
    assert "QLinear" in str(engine._model.loaded.model)
    replies = engine.complete(requests[:4])
    assert replies == [engine.complete([request])[0] for request in requests[:4]]
    assert engine.fingerprint != chat(tiny("idefics3")).fingerprint


def test_a_missing_quantizer_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    with pytest.raises(EngineError, match=r'transformers.quantize = "int8" needs optimum-quanto .* pip install'):
        chat(tiny("idefics3"), quantize="int8")


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_weights_that_are_quantised_already_say_what_loads_them(
    method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("idefics3"), folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None if name == "gptqmodel" else object())
    with pytest.raises(EngineError, match=rf"^{method} weights are loaded by gptqmodel; pip install gptqmodel$"):
        chat(folder)
    with pytest.raises(EngineError, match=rf'quantized already \({method}\).*"int8" cannot be; set it to "none"'):
        chat(folder, quantize="int8")
    assert loading.weight_bytes(folder, settings, TransformersConfig()) == sum(
        file.stat().st_size for file in folder.glob("*.safetensors")
    )


def test_a_missing_backend_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.foundation.converted_model._version", lambda package: "")
    with pytest.raises(EngineError, match=r'transformers.backend = "openvino": needs optimum-intel, which .* pip inst'):
        chat(tiny("idefics3"), backend="openvino", device="auto")


def test_models_that_cannot_be_had_say_which_and_how(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no model folder '/nowhere/none'"):
        chat(Path("/nowhere/none"))
    with pytest.raises(EngineError, match=r"has no config.json"):
        chat(tmp_path)
    # HF_HUB_OFFLINE is set in these tests.
    with pytest.raises(EngineError, match=r"'org/model' \(config.json and weights, revision 'main'\) are not in the"):
        TransformersModel("org/model", TransformersConfig())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(EngineError, match="brings code of its own"):
        chat(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(EngineError, match="does not know the model type 'nothing-known'"):
        chat(tmp_path)
    broken = shutil.copytree(tiny("llava"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match="broken/model.safetensors is no safetensors file"):
        chat(broken).complete([ChatRequest("x")])


def test_a_gated_model_says_where_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: Any, local_files_only: bool, **__: Any) -> str:
        if local_files_only:
            raise FileNotFoundError
        answer = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        raise GatedRepoError("gated", response=answer)

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(
        EngineError, match=r"'org/model' is gated: accept its terms at https://huggingface.co/org/model"
    ):
        locate("org/model", "main")


def test_the_fingerprint_tells_weights_prompts_and_decoding_apart(tiny: Tiny, tmp_path: Path) -> None:
    base = chat(tiny("llava")).fingerprint
    others = [
        chat(tiny("llava"), **change).fingerprint
        for change in (
            {"new": 9},
            {"dtype": "bfloat16"},
            {"max_pixels": 1000},
            {"temperature": 0.5},
            {"repetition_penalty": 1.1},
        )
    ]
    tuned = shutil.copytree(tiny("llava"), tmp_path / "tuned")
    weights = bytearray((tuned / "model.safetensors").read_bytes())
    weights[-100:] = bytes(100)
    (tuned / "model.safetensors").write_bytes(weights)
    others.append(chat(tuned).fingerprint)
    assert len({base, *others}) == len(others) + 1
    same = [chat(tiny("llava"), **change).fingerprint for change in ({"batch_size": 3}, {"batch_tokens": 99})]
    moved = shutil.copytree(tiny("llava"), tmp_path / "moved")
    assert {base} == {*same, chat(moved).fingerprint}


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_a_text_are_no_control_tokens(family: str, tiny: Tiny) -> None:
    if family == "smolvlm":
        pytest.importorskip("num2words")
    processor = load_processor(tiny(family))
    tokenizer = processor.tokenizer
    hostile = " ".join(tokenizer.all_special_tokens)
    rendered = render(processor, ChatRequest(f"title {hostile} end", f"system {hostile}"))
    plain = render(processor, ChatRequest("title end", "system"))
    special = set(tokenizer.all_special_ids)
    found, wanted = ([t for t in tokenizer(text)["input_ids"] if t in special] for text in (rendered, plain))
    assert found == wanted


def test_pictures_are_shrunk_to_their_cap() -> None:
    small = shrink(Image.new("RGB", (3000, 1000)), 448 * 448)
    assert small.width * small.height <= 448 * 448 and small.width > 2.9 * small.height
    assert shrink(small, 448 * 448) is small
