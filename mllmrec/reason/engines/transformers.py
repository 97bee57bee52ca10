"""The `transformers` engine: any image-text-to-text model in this process, in batches that the machine can hold.

Requests go by length in batches under a token budget, padded on the left; pictures are decoded and preprocessed
on threads while the model works on the batch before. Greedy by default, so a text does not depend on what else
is in its batch: bit for bit in float32, and up to the rounding of the matrix kernels in half precision.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError, MllmrecError, first_line
from mllmrec.foundation import digests, model_folder
from mllmrec.foundation.batching import Batches, Capacity, Cost, is_out_of_memory
from mllmrec.reason.answer_text import has_thought_marks
from mllmrec.reason.engine import ChatRequest, Finish, Reply, Report, no_report
from mllmrec.reason.engines import transformers_model as loading
from mllmrec.reason.engines.transformers_model import Loaded, text_settings
from mllmrec.reason.engines.transformers_processor import Prepared, prepare
from mllmrec.reason.token_budget import estimate_tokens

R = TypeVar("R")
_VERSION = "transformers 1"
_ON_CPU, _ON_GPU = (16, 16_384), (128, 1 << 20)  # requests, tokens at once
_BATCHES_A_CALL = 4  # so that there is something to sort, and a batch to prepare ahead
_KV_SHARE = 0.5  # of the free memory of a GPU that keys and values may take
_PIXELS_PER_TOKEN = 28 * 28  # of most current families; an estimate, for the order of work only
_THOUGHT = "<think>"  # put before a reply whose prompt ends in an open thought


class TransformersModel:
    """Weights that are loaded when they are first needed, and shared by what answers with them.

    Args:
        name: a Hugging Face name or a folder.
        config: of the engine.

    Raises:
        EngineError: the model or what it needs is not there; nothing heavy is loaded to find out.
    """

    def __init__(self, name: str, config: TransformersConfig) -> None:
        self.config = config
        self.folder = model_folder.locate(name, config.revision)
        self.settings = loading.read_config(self.folder)
        loading.check_backend(self.settings, config)
        self.dtype, self.device = loading.dtype_of(config), loading.device_of(config)

    @cached_property
    def identity(self) -> str:
        """Return what tells this model from others, its precision and the size of its pictures included."""
        config = self.config
        backend = "" if config.backend == "torch" else f" backend={config.backend}"
        return (
            f"{_VERSION}{backend} model={model_folder.identity(self.folder)} dtype={self.dtype} "
            f"quantize={config.quantize} pixels={config.max_pixels}"
        )

    @cached_property
    def loaded(self) -> Loaded:
        """Return model and processor."""
        return loading.load(self.folder, self.config)

    @cached_property
    def capacity(self) -> Capacity:
        """Return how much goes at once on this machine; it remembers what did not fit."""
        requests, tokens = _ON_CPU if self.device == "cpu" else _ON_GPU
        if self.device == "cuda":
            tokens = min(tokens, self._free_tokens())
        if self.config.backend == "openvino" and not loading.pads(self.settings):
            return Capacity(1, self.config.batch_tokens or tokens)
        return Capacity(self.config.batch_size or requests, self.config.batch_tokens or tokens)

    @property
    def batch_size(self) -> int:
        """Return how many requests a call holds."""
        return _BATCHES_A_CALL * (self.config.batch_size or (_ON_CPU if self.device == "cpu" else _ON_GPU)[0])

    def memory(self, tokens: int) -> int:
        """Estimate the bytes of weights, keys and values of a full batch with `tokens` tokens per request."""
        requests, most = _ON_CPU if self.device == "cpu" else _ON_GPU
        at_once = min(self.config.batch_tokens or most, (self.config.batch_size or requests) * tokens)
        width = 2 if self.dtype == "float32" else 1
        weights = loading.weight_bytes(self.folder, self.settings, self.config)
        return weights + at_once * width * kv_bytes_per_token(self.settings)

    def _free_tokens(self) -> int:
        import torch

        _ = self.loaded  # what is free is known once the weights are there
        free, _total = torch.cuda.mem_get_info()
        return max(int(_KV_SHARE * free) // kv_bytes_per_token(self.settings), 1)


class TransformersChat:
    """The ChatModel over a `TransformersModel`.

    Args:
        model: the weights.
        max_new_tokens: the limit of an answer.
        seed: of sampling, where the temperature is not 0; each batch is seeded by it and by what is in it.
    """

    def __init__(self, model: TransformersModel, *, max_new_tokens: int, seed: int) -> None:
        self._model, self._max_new_tokens, self._seed = model, max_new_tokens, seed

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
    def batch_size(self) -> int:
        """Return how many requests a call holds: a few batches."""
        return self._model.batch_size

    def complete(self, requests: Sequence[ChatRequest], report: Report = no_report) -> list[Reply]:
        """Return one reply a request, in order.

        Raises:
            EngineError: the weights cannot be loaded.
        """
        batches = Batches(
            prepare=lambda numbers: self._prepare(requests, numbers),
            compute=self._generate,
            failed=lambda error: Reply("", "failed", _reason(error)),
            free=_free_memory,
        )
        return self._run(batches, requests, report)

    def hidden_states(self, requests: Sequence[ChatRequest]) -> NDArray[np.float32]:
        """Return the mean of the last layer's states over a request's tokens, float32 [len(requests), hidden size].

        One prefill and no decoding. The row of a request that cannot be read is NaN.
        """
        nothing = np.full(self.width, np.nan, np.float32)
        batches: Batches[Prepared, NDArray[np.float32]] = Batches(
            prepare=lambda numbers: self._prepare(requests, numbers),
            compute=lambda numbers, prepared: self._pool(numbers, prepared, nothing),
            failed=lambda _: nothing,
            free=_free_memory,
        )
        rows = self._run(batches, requests)
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)

    def _run(
        self, batches: Batches[Prepared, R], requests: Sequence[ChatRequest], report: Report = no_report
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
            self._check_length(int(prepared.inputs["input_ids"].shape[1]))
        return prepared

    def _check_length(self, longest: int) -> None:
        limit = text_settings(self._model.settings).get("max_position_embeddings")
        if limit and longest + self._max_new_tokens > limit:
            raise MllmrecError(
                f"the prompt has {longest:,} tokens, and with {self._max_new_tokens} new ones the model reads {limit:,}"
            )

    def _generate(self, numbers: Sequence[int], prepared: Prepared) -> list[Reply]:
        replies = {n: Reply("", "failed", why) for n, why in prepared.refused.items()}
        if prepared.rows:
            for n, reply, thinking in zip(prepared.rows, self._decode(prepared.inputs), prepared.thinking, strict=True):
                replies[n] = replace(reply, text=f"{_THOUGHT}{reply.text}") if thinking else reply
        return [replies[n] for n in numbers]

    def _decode(self, inputs: Any) -> list[Reply]:
        import torch

        loaded = self._model.loaded
        decoding = self._decoding()
        seed = digests.hash_value([self._seed, inputs["input_ids"].tolist()]) if decoding.do_sample else "0"
        devices = [torch.cuda.current_device()] if self._model.device == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(int(seed[:15], 16))
            tokens = loaded.model.generate(**self._placed(inputs), generation_config=decoding)
        new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._reply(row, decoding.eos_token_id) for row in new]

    def _reply(self, tokens: list[int], ends: int | list[int] | None) -> Reply:
        last = {ends} if isinstance(ends, int) else set(ends or ())
        finish: Finish = "stop" if last & set(tokens) else "length"
        tokenizer = self._model.loaded.processor.tokenizer
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        marked = tokenizer.decode(tokens, skip_special_tokens=False)
        if has_thought_marks(marked) and not has_thought_marks(text):
            text = marked  # some tokenizers call the marks of a thought special, and drop them
        return Reply(text.strip(), finish)

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
        self, numbers: Sequence[int], prepared: Prepared, nothing: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        import torch

        rows = dict.fromkeys(prepared.refused, nothing)
        if prepared.rows:
            placed = self._placed(prepared.inputs)
            with torch.inference_mode():
                states = self._model.loaded.model.base_model(**placed, use_cache=False).last_hidden_state
                mask = placed["attention_mask"].unsqueeze(-1)  # [B, T, 1]
                # In float32: a sum over thousands of states in half precision would lose the small ones.
                pooled = (states.float() * mask).sum(1) / mask.sum(1)
            rows |= zip(prepared.rows, pooled.cpu().numpy(), strict=True)
        return [rows[n] for n in numbers]


def kv_bytes_per_token(settings: dict[str, Any]) -> int:
    """Return the bytes of keys and values of one token in half precision, all layers."""
    text = text_settings(settings)
    heads = text.get("num_attention_heads", 1)
    width = text.get("head_dim") or text.get("hidden_size", 1) // heads
    return int(2 * 2 * text.get("num_hidden_layers", 1) * (text.get("num_key_value_heads") or heads) * width)


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "out of memory with this request alone; lower transformers.max_pixels or the tokens of the prompt"
    return first_line(error)
