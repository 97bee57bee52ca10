"""Our own decoding of llamas: the library's tokens, whatever goes together, and counts as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mllmrec.engine_config import TransformersConfig
from mllmrec.reason.engine import NO_RESULTS, ChatRequest, Reply
from mllmrec.reason.engines import text_decoding, transformers_model
from mllmrec.reason.engines.decoding import Decoding, allowed_tokens, shared_prefix, with_sentences
from mllmrec.reason.engines.llama_decoding import answer
from mllmrec.reason.engines.llama_network import LlamaNetwork
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.text_decoding import fits
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.engines.transformers_processor import render

Tiny = Callable[[str], Path]
REQUESTS = [ChatRequest(f"what is it {'so ' * (n * 7 % 11)}", "be brief") for n in range(9)]


def model_of(tiny: Tiny, **settings: Any) -> TransformersModel:
    return TransformersModel(str(tiny("llama")), TransformersConfig(device="cpu", **settings))


def library(model: TransformersModel) -> TransformersModel:
    """The same weights, decoded by the library."""
    model.__dict__["network"] = None
    return model


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_tokens_are_those_of_the_library(tiny: Tiny, penalty: float) -> None:
    own, other = model_of(tiny, repetition_penalty=penalty), library(model_of(tiny, repetition_penalty=penalty))
    assert own.network is not None
    replies = TransformersChat(own, max_new_tokens=12, seed=0).complete(REQUESTS)
    reference = TransformersChat(other, max_new_tokens=12, seed=0)
    assert replies == [reference.complete([request])[0] for request in REQUESTS]
    assert len({reply.text for reply in replies}) > 4


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1 << 20), (3, 1 << 20), (9, 60), (9, 1 << 20)])
def test_what_goes_together_changes_no_token(tiny: Tiny, rows: int, tokens: int) -> None:
    model = model_of(tiny)
    assert model.network is not None
    tokenizer = model.loaded.processor.tokenizer
    prompts = [list(tokenizer(f"the same beginning {request.text}")["input_ids"]) for request in REQUESTS]
    free = [answer(model.network, [prompt], Decoding(16, set(), 1.0, 1, 1 << 20))[0] for prompt in prompts]
    ends = {new[n] for n, new in enumerate(free)}  # so that answers end at different lengths
    alone = [answer(model.network, [prompt], Decoding(16, ends, 1.0, 1, 1 << 20))[0] for prompt in prompts]
    assert answer(model.network, prompts, Decoding(16, ends, 1.0, rows, tokens)) == alone
    assert len({len(new) for new in alone}) > 1


def reports(chat: TransformersChat) -> list[tuple[int, int, int]]:
    seen: list[tuple[int, int, int]] = []
    chat.complete(REQUESTS, lambda done, tokens=0, most=0, results=None: seen.append((done, tokens, most)))
    return seen


@pytest.mark.parametrize("own", [True, False])
def test_each_reply_is_reported_as_it_ends(tiny: Tiny, own: bool) -> None:
    model = model_of(tiny, batch_size=4)
    chat = TransformersChat(model if own else library(model), max_new_tokens=6, seed=0)
    seen: dict[int, Reply] = {}
    counts: list[tuple[int, int]] = []

    def report(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Reply] = NO_RESULTS) -> None:
        seen.update(results)
        counts.append((done, len(seen)))

    replies = chat.complete(REQUESTS, report)
    assert [seen[n] for n in range(len(REQUESTS))] == replies
    assert all(done == there for done, there in counts) and len({done for done, _ in counts}) > 2


def test_an_answer_ends_after_the_sentences_that_are_wanted(tiny: Tiny) -> None:
    model = model_of(tiny)
    assert model.network is not None
    prompts = [[4, 5, 6], [4, 5, 6], [4, 5, 6]]
    free = answer(model.network, prompts[:1], Decoding(16, set(), 1.0, 1, 1 << 20))[0]
    point = free[1]
    limits = Decoding(16, set(), 1.0, 3, 1 << 20, sentence_ends={point})
    first, second, all_of_it = answer(model.network, prompts, limits, sentences=[1, 2, 0])
    assert first == free[: free.index(point) + 1] and all_of_it == free
    assert len(second) > len(first) and (second == free or second.count(point) == 2)


def test_the_point_of_a_number_ends_no_sentence() -> None:
    words = ["1", "7", "mm", ".", "!", " And", "\n"]
    tokenizer = SimpleNamespace(get_vocab=lambda: {word: n for n, word in enumerate(words)})
    limits = with_sentences(Decoding(16, set(), 1.0, 1, 1 << 20), tokenizer)

    def ends(*text: str) -> list[int]:
        """The places whose tokens show that a sentence is over."""
        tokens = [words.index(word) for word in text]
        return [place for place in range(len(tokens)) if limits.ends_sentence(tokens[: place + 1])]

    assert ends("mm", ".", " And", "mm", "!") == [1, 4]
    assert ends("1", ".", "7", "mm", ".") == [4]  # 1.7mm.
    assert ends("1", ".", " And", "mm") == [2]  # 1. And
    assert limits.line_ends == {words.index("\n")}


def test_tokens_are_counted_as_they_come(tiny: Tiny) -> None:
    for model in (model_of(tiny, batch_size=4), library(model_of(tiny, batch_size=4))):
        chat = TransformersChat(model, max_new_tokens=6, seed=0)
        seen = reports(chat)
        assert seen == sorted(seen) and seen[-1][0] == len(REQUESTS)
        assert {most for _, _, most in seen} == {6 * len(REQUESTS)}
        assert len({tokens for _, tokens, _ in seen}) >= 12  # more than two a batch: within it too


def test_requests_that_cannot_be_read_fail_alone(tiny: Tiny, tmp_path: Path) -> None:
    chat = TransformersChat(model_of(tiny), max_new_tokens=6, seed=0)
    requests = [REQUESTS[0], ChatRequest("x", "", (tmp_path / "a.png",)), ChatRequest("word " * 5000), REQUESTS[1]]
    replies = chat.complete(requests)
    assert [reply.finish == "failed" for reply in replies] == [False, True, True, False]
    assert "reads no pictures" in replies[1].reason and "with 6 new ones the model reads 4,096" in replies[2].reason
    assert chat.complete([]) == []


def test_only_plain_llamas_are_decoded_here(tiny: Tiny) -> None:
    settings = model_of(tiny).settings
    assert fits(settings) and not fits(settings | {"model_type": "qwen2"}) and not fits(settings | {"mlp_bias": True})
    assert not fits(settings | {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}})
    for other in ({"temperature": 0.5}, {"kv_cache": "static"}, {"quantize": "int8"}):
        assert model_of(tiny, **other).network is None
    assert text_decoding.too_long(10, 5, settings) == ""


def test_the_network_holds_the_library_s_own_weights_once(tiny: Tiny) -> None:
    model = model_of(tiny)
    network = model.network
    assert isinstance(network, LlamaNetwork)
    layer = model.loaded.model.model.layers[0]
    assert layer.self_attn.k_proj.weight.untyped_storage().data_ptr() == network._layers[0].attention_in.data_ptr()
    tokens = torch.arange(4, 12)
    with torch.inference_mode():
        expected = model.loaded.model(tokens[None]).logits[0, -1]
        got = network.read(tokens, network.allocate(1, 8), 0, 0)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_prefix_leaves_each_prompt_a_token() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2 and shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert shared_prefix([[1, 2, 3]]) == 0 == shared_prefix([[1], [2]])


def test_the_precision_follows_the_processor_and_the_size(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = tiny("llama"), TransformersConfig(device="cpu")
    monkeypatch.setattr(transformers_model, "multiplies_bfloat16", lambda: True)
    assert transformers_model.dtype_of(folder, config) == "float32"  # too small to gain
    monkeypatch.setattr(transformers_model, "_SMALL", 1000)
    assert transformers_model.dtype_of(folder, config) == "bfloat16"
    assert transformers_model.dtype_of(folder, TransformersConfig(device="cpu", dtype="float32")) == "float32"
    monkeypatch.setattr(transformers_model, "multiplies_bfloat16", lambda: False)
    assert transformers_model.dtype_of(folder, config) == "float32"


def test_examples_and_the_opening_stand_in_the_prompt(tiny: Tiny) -> None:
    model = model_of(tiny)
    request = ChatRequest("what now", "be brief", opening="It is", examples=(("what is it", "It was."),))
    text = render(model.loaded.processor, request)
    places = [text.index(part) for part in ("be brief", "what is it", "It was.", "what now")]
    assert places == sorted(places) and text.endswith("It is")
    (reply,) = TransformersChat(model, max_new_tokens=6, seed=0).complete([request])
    assert reply.text.startswith("It is")


def test_an_answer_keeps_to_the_words_of_its_request(tiny: Tiny) -> None:
    open_ones = [ChatRequest(f"what is it {'so ' * n}") for n in range(3)]
    closed = [replace(request, words=("so", "What")) for request in open_ones]
    replies = []
    for model in (model_of(tiny), library(model_of(tiny))):
        tokenizer = model.loaded.processor.tokenizer
        kept = set(allowed_tokens(tokenizer, ("so", "What"), [2]))
        assert {2, *tokenizer(" what", add_special_tokens=False)["input_ids"]} <= kept
        chat = TransformersChat(model, max_new_tokens=8, seed=0)
        replies.append(chat.complete([*closed, open_ones[0]]))
        letters = set("".join(reply.text for reply in replies[-1][:3]))
        assert letters <= set("".join(tokenizer.decode([token]) for token in kept))
        assert replies[-1][3] == chat.complete([open_ones[0]])[0] != replies[-1][0]
    assert replies[0] == replies[1]
    assert allowed_tokens(tokenizer, (), [2]) == []
