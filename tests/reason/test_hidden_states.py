"""Hidden states in the place of texts: the library's values, the user's own tokens, layer and pooling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import ConfigError
from mllmrec.features.encode import center_states
from mllmrec.reason.engine import ChatRequest, Readout
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.engines.transformers_processor import render
from mllmrec.reason.requests import Engines

Tiny = Callable[[str], Path]
EXAMPLES = (("two socks", "likes socks"),)
REQUESTS = [ChatRequest(f"bought {'a hat ' * (n * 7 % 5)}{n}", "be brief", examples=EXAMPLES) for n in range(6)]
READOUTS = [Readout(layer, pooling) for layer in (0, 1, -1) for pooling in ("mean", "last")]  # type: ignore[arg-type]


def chat_of(tiny: Tiny, *, own: bool) -> TransformersChat:
    model = TransformersModel(str(tiny("llama")), TransformersConfig(device="cpu", dtype="float32"))
    if not own:
        model.__dict__["network"] = None
    return TransformersChat(model, max_new_tokens=4, seed=0)


def by_hand(model: Any, processor: Any, request: ChatRequest, readout: Readout) -> Any:
    """The library's states of the tokens from the request's own text on."""
    text = render(processor, request)
    read = processor.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, own = torch.tensor([read["input_ids"]]), text.rindex(request.text)
    states = model(ids, output_hidden_states=True).hidden_states[readout.layer][0]
    first = next(n for n, (_, end) in enumerate(read["offset_mapping"]) if end > own)
    return (states[-1] if readout.pooling == "last" else states[first:].mean(0)).detach().numpy()


def test_our_own_pass_has_the_library_s_states(tiny: Tiny) -> None:
    ours, other = chat_of(tiny, own=True), chat_of(tiny, own=False)
    assert ours._model.network is not None and ours.depth == 2
    states, reference = (chat.hidden_states(REQUESTS, READOUTS) for chat in (ours, other))
    assert states.shape == (6, 6, 64) and states.dtype == np.float32
    # Sums in another order; states of this model are about 7.
    np.testing.assert_allclose(states, reference, atol=1e-3)
    loaded = other._model.loaded
    for place, readout in enumerate(READOUTS):
        expected = [by_hand(loaded.model, loaded.processor, request, readout) for request in REQUESTS]
        np.testing.assert_allclose(states[place], expected, atol=1e-3, err_msg=str(readout))


def test_a_row_depends_on_no_other_request(tiny: Tiny) -> None:
    chat = chat_of(tiny, own=True)
    together = chat.hidden_states(REQUESTS, READOUTS)
    alone = [chat.hidden_states([request], READOUTS)[:, 0] for request in REQUESTS]
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))


def test_a_prompt_that_is_too_long_has_no_states(tiny: Tiny) -> None:
    long = ChatRequest("hat " * 5000)
    states = chat_of(tiny, own=True).hidden_states([REQUESTS[0], long])
    assert np.isfinite(states[0, 0]).all() and np.isnan(states[0, 1]).all()


def test_states_are_centered_over_the_users_who_have_some() -> None:
    states = np.array([[100, 1, 0], [100, -1, 0], [0, 0, 0], [100, 0, 3]], np.float32)
    vectors = center_states(states)
    root = np.sqrt(2)
    np.testing.assert_allclose(vectors[:2], [[0, 1 / root, -1 / root], [0, -1 / root, -1 / root]], atol=1e-6)
    np.testing.assert_array_equal(vectors[2:], [[0, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(center_states(states[:1])[0], states[0] / np.linalg.norm(states[0]), atol=1e-6)


def test_layer_and_pooling_are_settings_and_stand_in_the_fingerprint(dataset: Dataset, tiny: Tiny) -> None:
    def fingerprint(*settings: str) -> str:
        words = ["profile.kind=hidden", "profile.engine=transformers", f"profile.model={tiny('llama')}", *settings]
        return Engines(load_config(None, words), dataset).profile_fingerprint

    prints = [
        fingerprint(f"profile.layer={layer}", f"profile.pooling={pool}")
        for layer in (-1, 1)
        for pool in ("mean", "last")
    ]
    assert len(set(prints)) == 4 and fingerprint() == prints[0]
    with pytest.raises(ConfigError, match=r"profile.layer = 3, but the model has 2 layers; -1 is the last"):
        fingerprint("profile.layer=3")
