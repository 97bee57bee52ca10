"""The `transformers` engine: any image-text-to-text model in this process, in batches that the machine can hold.

Requests go by length in batches under a token budget, padded on the left; pictures are decoded and preprocessed
on threads while the model works on the batch before. Greedy by default, so a text does not depend on what else
is in its batch: bit for bit in float32, and up to the rounding of the matrix kernels in half precision.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError, MllmrecError, first_line
from mllmrec.foundation import digests
from mllmrec.foundation.batching import Batches, Cost, is_out_of_memory
from mllmrec.reason.engine import ChatRequest, Readout, Reply, Report, no_report
from mllmrec.reason.engines import text_decoding
from mllmrec.reason.engines import transformers_model as loading
from mllmrec.reason.engines.decoding import Decoding, allowed_tokens, too_long
from mllmrec.reason.engines.hidden_states import Beginnings, pool_batch, read_states
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.text_decoding import TokenCounter
from mllmrec.reason.engines.transformers_model import text_settings
from mllmrec.reason.engines.transformers_processor import Prepared, end_tokens, prepare, to_reply
from mllmrec.reason.token_budget import estimate_tokens

R = TypeVar("R")
_PIXELS_PER_TOKEN = 28 * 28  # of most current families; an estimate, for the order of work only


class TransformersChat:
    """The ChatModel over a `TransformersModel`.

    Args:
        model: the weights.
        max_new_tokens: the limit of an answer.
        seed: of sampling, where the temperature is not 0; each batch is seeded by it and by what is in it.
    """

    def __init__(self, model: TransformersModel, *, max_new_tokens: int, seed: int) -> None:
        self._model, self._max_new_tokens, self._seed = model, max_new_tokens, seed

    def as_json(self) -> dict[str, Any]:
        """Return what another process makes the same from."""
        model = self._model
        settings = {"max_new_tokens": self._max_new_tokens, "seed": self._seed}
        return {"model": model.name, "config": model.config.model_dump(mode="json"), **settings}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TransformersChat:
        """Return what `as_json` was made from."""
        model = TransformersModel(str(value["model"]), TransformersConfig(**value["config"]))
        return TransformersChat(model, max_new_tokens=int(value["max_new_tokens"]), seed=int(value["seed"]))

    @property
    def device(self) -> str:
        """Return where the model runs: "cpu" or "cuda"."""
        return self._model.device

    @property
    def fingerprint(self) -> str:
        """Return model, revision, precision, and how it decodes."""
        config = self._model.config
        sampled = f" temperature={config.temperature} top_p={config.top_p} seed={self._seed}"
        return (
            f"{self._model.identity} new={self._max_new_tokens} penalty={config.repetition_penalty}"
            f"{sampled if config.temperature else ' greedy'}"
        )

    @property
    def states_fingerprint(self) -> str:
        """Return model, revision and precision; how it decodes does not matter to its states.

        Raises:
            EngineError: the backend gives no states.
        """
        if self._model.config.backend != "torch":
            raise EngineError(
                'profile.kind = "hidden" reads a model\'s states, which OpenVINO keeps to itself; set '
                "transformers.backend=torch"
            )
        return self._model.identity

    @property
    def width(self) -> int:
        """Return the hidden size."""
        return int(text_settings(self._model.settings)["hidden_size"])

    @property
    def depth(self) -> int:
        """Return the number of layers."""
        return int(text_settings(self._model.settings)["num_hidden_layers"])

    @property
    def batch_size(self) -> int:
        """Return how many requests a call holds: a few batches."""
        return self._model.batch_size

    def complete(self, requests: Sequence[ChatRequest], report: Report[Reply] = no_report) -> list[Reply]:
        """Return one reply per request, in order.

        Raises:
            EngineError: the weights cannot be loaded.
        """
        if (network := self._model.network) is not None:
            return text_decoding.complete(self._model.loaded, network, requests, self._limits(), report)
        counter = TokenCounter(report, len(requests) * self._max_new_tokens)
        batches = Batches(
            prepare=lambda numbers: self._prepare(requests, numbers),
            compute=lambda numbers, prepared: self._generate(requests, numbers, prepared, counter),
            failed=lambda error: Reply("", "failed", _reason(error)),
            free=loading.free_memory,
        )
        return self._run(batches, requests, counter.finished)

    def hidden_states(
        self, requests: Sequence[ChatRequest], readouts: Sequence[Readout] = (Readout(),)
    ) -> NDArray[np.float32]:
        """Return the pooled states of each request, float32 [readouts, requests, hidden size].

        One prefill and no decoding. The rows of a request that cannot be read are NaN.
        """
        if requests and (network := self._model.network) is not None:
            return read_states(self._model.loaded, network, requests, readouts)
        nothing = np.full((len(readouts), self.width), np.nan, np.float32)
        batches: Batches[Prepared, NDArray[np.float32]] = Batches(
            prepare=lambda numbers: self._prepare(requests, numbers),
            compute=lambda numbers, prepared: self._pool(requests, numbers, prepared, readouts),
            failed=lambda _: nothing,
            free=loading.free_memory,
        )
        rows = self._run(batches, requests)
        return np.stack(rows, axis=1) if rows else np.zeros((len(readouts), 0, self.width), np.float32)

    def _run(
        self,
        batches: Batches[Prepared, R],
        requests: Sequence[ChatRequest],
        report: Callable[[int, Mapping[int, R]], None] = lambda done, results: None,
    ) -> list[R]:
        if not requests:
            return []
        _ = self._model.loaded  # here, where a fault stops the stage; in a batch it would be that of its requests
        return batches.run([self._cost(request) for request in requests], self._model.capacity, report)

    def _cost(self, request: ChatRequest) -> Cost:
        pictures = len(request.images) * (self._model.config.max_pixels // _PIXELS_PER_TOKEN)
        prompt = estimate_tokens(request.system) + estimate_tokens(request.text)
        return Cost(len(request.images), prompt + pictures + self._max_new_tokens)

    def _prepare(self, requests: Sequence[ChatRequest], numbers: Sequence[int]) -> Prepared:
        prepared = prepare(self._model.loaded.processor, requests, numbers, self._model.config.max_pixels)
        if prepared.rows:
            longest = int(prepared.inputs["input_ids"].shape[1])
            if why := too_long(longest, self._max_new_tokens, self._model.settings):
                raise MllmrecError(why)
        return prepared

    def _limits(self) -> Decoding:
        """Return the limits of an answer, and how many requests go at once."""
        capacity = self._model.capacity
        return Decoding(
            max_new_tokens=self._max_new_tokens,
            ends=end_tokens(self._decoding().eos_token_id),
            repetition_penalty=self._model.config.repetition_penalty,
            rows=capacity.most,
            tokens=capacity.tokens,
        )

    def _generate(
        self, requests: Sequence[ChatRequest], numbers: Sequence[int], prepared: Prepared, counter: TokenCounter
    ) -> list[Reply]:
        replies = {n: Reply("", "failed", why) for n, why in prepared.refused.items()}
        if prepared.rows:
            ends = end_tokens(self._decoding().eos_token_id)
            tokenizer = self._model.loaded.processor.tokenizer
            allowed = [allowed_tokens(tokenizer, requests[n].words, ends) for n in prepared.rows]
            decoded = self._decode(prepared.inputs, counter, allowed)
            for n, reply, thinking in zip(prepared.rows, decoded, prepared.thinking, strict=True):
                replies[n] = text_decoding.begun(reply, requests[n].opening, thinking=thinking)
        return [replies[n] for n in numbers]

    def _decode(self, inputs: Any, counter: TokenCounter, allowed: Sequence[list[int]]) -> list[Reply]:
        import torch

        loaded = self._model.loaded
        decoding, every = self._decoding(), list(range(len(loaded.processor.tokenizer)))
        seed = digests.hash_value([self._seed, inputs["input_ids"].tolist()]) if decoding.do_sample else "0"
        devices = [torch.cuda.current_device()] if self._model.device == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(int(seed[:15], 16))
            tokens = loaded.model.generate(
                **self._placed(inputs),
                generation_config=decoding,
                stopping_criteria=[counter.each_step],
                prefix_allowed_tokens_fn=(lambda row, tokens: allowed[row] or every) if any(allowed) else None,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
        tokenizer, ends = loaded.processor.tokenizer, end_tokens(decoding.eos_token_id)
        return [to_reply(tokenizer, row, ends) for row in new]

    def _decoding(self) -> Any:
        """Return the model's own generation config, but greedy or sampled as ours says."""
        config, loaded = self._model.config, self._model.loaded
        decoding = copy.deepcopy(loaded.model.generation_config)
        decoding.max_new_tokens, decoding.max_length = self._max_new_tokens, None
        decoding.do_sample = config.temperature > 0
        decoding.temperature = config.temperature if decoding.do_sample else None
        decoding.top_p = config.top_p if decoding.do_sample else None
        decoding.top_k = None
        decoding.repetition_penalty = config.repetition_penalty
        decoding.pad_token_id = loaded.processor.tokenizer.pad_token_id
        if decoding.eos_token_id is None:
            decoding.eos_token_id = loaded.processor.tokenizer.eos_token_id
        if config.kv_cache == "static":
            decoding.cache_implementation = "static"
        return decoding

    def _placed(self, inputs: Any) -> dict[str, Any]:
        """Return inputs on the model's device, floats in its precision, without what its family does not read."""
        import torch

        placed = inputs.to(self._model.device, dtype=getattr(torch, self._model.dtype))
        known = inspect.signature(self._model.loaded.model.forward).parameters
        return {name: value for name, value in placed.items() if name != "token_type_ids" or name in known}

    def _pool(
        self,
        requests: Sequence[ChatRequest],
        numbers: Sequence[int],
        prepared: Prepared,
        readouts: Sequence[Readout],
    ) -> list[NDArray[np.float32]]:
        import torch

        rows = dict.fromkeys(prepared.refused, np.full((len(readouts), self.width), np.nan, np.float32))
        if prepared.rows:
            placed, loaded = self._placed(prepared.inputs), self._model.loaded
            deep = [readout.layer for readout in readouts if readout.layer != -1]
            with torch.inference_mode():
                read = loaded.model.base_model(**placed, use_cache=False, output_hidden_states=bool(deep))
                states = {-1: read.last_hidden_state, **{layer: read.hidden_states[layer] for layer in deep}}
                mask = placed["attention_mask"]
                beginnings = Beginnings(loaded.processor)
                own = [tokens[kept.bool()].tolist() for tokens, kept in zip(placed["input_ids"], mask, strict=True)]
                starts = [beginnings.length(requests[n], ids) for n, ids in zip(prepared.rows, own, strict=True)]
                rows |= zip(prepared.rows, pool_batch(states, mask, starts, readouts), strict=True)
        return [rows[n] for n in numbers]


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "out of memory with this request alone; lower transformers.max_pixels or the tokens of the prompt"
    return first_line(error)
