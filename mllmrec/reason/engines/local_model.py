"""A model in this process: its folder, precision and size before anything is loaded, its weights when first needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mllmrec.engine_config import TransformersConfig
from mllmrec.foundation import model_folder
from mllmrec.foundation.batching import Capacity
from mllmrec.reason.engines import text_decoding
from mllmrec.reason.engines import transformers_model as loading
from mllmrec.reason.engines.gguf_model import converted_folder
from mllmrec.reason.engines.openvino_model import pads
from mllmrec.reason.engines.transformers_model import Loaded
from mllmrec.reason.engines.transformers_processor import load_tokenizer
from mllmrec.reason.token_budget import Measure, measure_of

if TYPE_CHECKING:
    from mllmrec.reason.engines.llama_network import LlamaNetwork

_VERSION = "transformers 1"
# Requests and tokens at once; our own pass reads prompts one by one, so more rows cost no padding.
_ON_CPU, _OWN_PASS, _ON_GPU = (16, 16_384), (32, 16_384), (128, 1 << 20)
_BATCHES_A_CALL = 4  # so that there is something to sort, and a batch to prepare ahead
_LARGE = 1_000_000_000  # weights
_KV_SHARE = 0.5  # of the free memory of a GPU that keys and values may take


class TransformersModel:
    """Weights that are loaded when they are first needed, and shared by what answers with them.

    Args:
        name: a Hugging Face name, a folder, a GGUF file, or a short name of one.
        config: of the engine.

    Raises:
        EngineError: the model or what it needs is not there; nothing heavy is loaded to find out.
    """

    def __init__(self, name: str, config: TransformersConfig) -> None:
        self.name, self.config = name, config
        self.folder = converted_folder(name) or model_folder.locate(name, config.revision)
        self.settings = loading.read_config(self.folder)
        loading.check_backend(self.settings, config)
        self.dtype, self.device = loading.dtype_of(self.folder, config), loading.device_of(config)

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
    def measure(self) -> Measure:
        """Return the measure of texts by the model's tokenizer; only that is loaded."""
        return measure_of(load_tokenizer(self.folder))

    @property
    def is_small(self) -> bool:
        """Return whether the model has less than a billion weights: such a one wants short and plain prompts."""
        return loading.count_values(self.folder) < _LARGE

    @property
    def has_own_pass(self) -> bool:
        """Return whether our own forward pass runs these weights, with these settings, on the CPU."""
        config = self.config
        greedy = config.temperature == 0 and config.quantize == "none" and config.kv_cache == "dynamic"
        return config.backend == "torch" and self.device == "cpu" and greedy and text_decoding.fits(self.settings)

    @cached_property
    def network(self) -> LlamaNetwork | None:
        """Return our own forward pass over the weights, None if the model or the settings need the library's."""
        if not self.has_own_pass:
            return None
        from mllmrec.reason.engines.llama_network import LlamaNetwork

        return LlamaNetwork(self.loaded.model)

    @cached_property
    def capacity(self) -> Capacity:
        """Return how much goes at once on this machine; it remembers what did not fit."""
        requests, tokens = self._at_once
        if self.device == "cuda":
            tokens = min(tokens, self._free_tokens())
        if self.config.backend == "openvino" and not pads(self.settings):
            return Capacity(1, self.config.batch_tokens or tokens)
        return Capacity(self.config.batch_size or requests, self.config.batch_tokens or tokens)

    @property
    def batch_size(self) -> int:
        """Return how many requests a call holds."""
        return _BATCHES_A_CALL * (self.config.batch_size or self._at_once[0])

    def memory(self, tokens: int) -> int:
        """Estimate the bytes of weights, keys and values of a full batch with `tokens` tokens per request."""
        requests, most = self._at_once
        at_once = min(self.config.batch_tokens or most, (self.config.batch_size or requests) * tokens)
        width = 2 if self.dtype == "float32" else 1
        weights = loading.weight_bytes(self.folder, self.settings, self.config)
        return weights + at_once * width * loading.kv_bytes_per_token(self.settings)

    @property
    def _at_once(self) -> tuple[int, int]:
        if self.device == "cuda":
            return _ON_GPU
        return _OWN_PASS if self.has_own_pass else _ON_CPU

    def _free_tokens(self) -> int:
        import torch

        _ = self.loaded  # what is free is known once the weights are there
        free, _total = torch.cuda.mem_get_info()
        return max(int(_KV_SHARE * free) // loading.kv_bytes_per_token(self.settings), 1)
