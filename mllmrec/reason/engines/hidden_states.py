"""Pool the hidden states that a model holds after reading prompts.

All prompts of a template begin alike: with the system's turn and the examples. These tokens say nothing of a user, and
in many models the very first one has states so large that they drown a mean. So a mean is over the tokens after that
beginning. Our own pass reads the beginning once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.reason.engine import ChatRequest, Readout
from mllmrec.reason.engines.decoding import shared_prefix, too_long
from mllmrec.reason.engines.transformers_model import Loaded
from mllmrec.reason.engines.transformers_processor import begins, render

if TYPE_CHECKING:
    from torch import Tensor

    from mllmrec.reason.engines.llama_network import LlamaNetwork


class Beginnings:
    """Count the first tokens of a prompt that it shares with all prompts of its template.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._without_text: dict[ChatRequest, list[int]] = {}

    def tokens(self, request: ChatRequest) -> list[int]:
        """Return the tokens of a prompt, pictures aside."""
        text, tokenizer = render(self._processor, request), self._processor.tokenizer
        read = tokenizer(text, add_special_tokens=not begins(tokenizer, text), verbose=False)["input_ids"]
        return list(read)

    def length(self, request: ChatRequest, tokens: list[int]) -> int:
        """Return how many tokens stand before a request's own; at least one is its own."""
        bare = replace(request, text="", images=())
        if bare not in self._without_text:
            self._without_text[bare] = self.tokens(bare)
        return shared_prefix([tokens, self._without_text[bare]])


def read_states(
    loaded: Loaded, network: LlamaNetwork, requests: Sequence[ChatRequest], readouts: Sequence[Readout]
) -> NDArray[np.float32]:
    """Return the pooled states of each request by our own forward pass.

    Args:
        loaded: model and processor.
        network: our pass over the model's weights.
        requests: in any order; a row does not depend on the others.
        readouts: layers and poolings; one pass serves all.

    Returns:
        float32 [readouts, requests, hidden size]; NaN for a request with pictures, or too long for the model.
    """
    import torch

    settings = loaded.model.config.to_dict()
    pooled = np.full((len(readouts), len(requests), settings["hidden_size"]), np.nan, np.float32)
    beginnings = Beginnings(loaded.processor)
    prompts = {n: beginnings.tokens(request) for n, request in enumerate(requests) if not request.images}
    prompts = {n: tokens for n, tokens in prompts.items() if not too_long(len(tokens), 0, settings)}
    if not prompts:
        return pooled
    row, held = network.allocate(1, max(map(len, prompts.values()))), list[int]()
    layers = [readout.layer for readout in readouts]
    with torch.inference_mode():
        for n, tokens in prompts.items():
            start = beginnings.length(requests[n], tokens)
            if start and tokens[:start] != held:
                held = tokens[:start]
                network.read(torch.tensor(held), row, 0, 0)
            states = network.read_states(torch.tensor(tokens[start:]), row, start, layers)
            for place, readout in enumerate(readouts):
                pooled[place, n] = _pooled(states[place], readout).numpy()
    return pooled


def _pooled(states: Tensor, readout: Readout) -> Tensor:
    """Return float32 [hidden size] of the states [T, hidden size]: a half-precision sum would lose small ones."""
    return states[-1].float() if readout.pooling == "last" else states.float().mean(0)


def pool_batch(
    states: Mapping[int, Tensor], mask: Tensor, starts: Sequence[int], readouts: Sequence[Readout]
) -> NDArray[np.float32]:
    """Return the pooled states of a batch of the library's, padded on the left.

    Args:
        states: [B, T, hidden size] of each layer.
        mask: [B, T], 1 where a token is none of the padding.
        starts: of each row, the tokens before its own.
        readouts: layers and poolings.

    Returns:
        float32 [B, readouts, hidden size].
    """
    length, counts = mask.shape[1], mask.sum(1).tolist()
    firsts = [length - count + start for count, start in zip(counts, starts, strict=True)]
    rows = [
        [_pooled(states[readout.layer][n, first:], readout).cpu().numpy() for readout in readouts]
        for n, first in enumerate(firsts)
    ]
    return np.asarray(rows, np.float32)
