"""Load a model of the `transformers` engine: weights, processor, precision, quantization, backend.

Whatever the files or the machine refuse comes out as one line. Code that comes with a model is never run; weights are
read from safetensors only.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError, first_line
from mllmrec.foundation import storage
from mllmrec.foundation.environment import multiplies_bfloat16
from mllmrec.foundation.model_folder import count_weights
from mllmrec.reason.engines import openvino_model
from mllmrec.reason.engines.transformers_processor import cap_pixels, load_processor

_SMALL = 50_000_000  # weights; below it, a float32 pass takes milliseconds
# What transformers loads such weights with; other methods say themselves what they need.
_LOADED_BY = {"gptq": ("gptqmodel", "optimum"), "awq": ("gptqmodel", "accelerate")}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to answer.

    Attributes:
        model: in evaluation mode, on its device.
        processor: tokenizer, chat template and picture preprocessing.
        device: a torch device.
    """

    model: Any
    processor: Any
    device: Any


def read_config(folder: Path) -> dict[str, Any]:
    """Return the model's config.json, checked for faults that would stop a run before any weight is read.

    Raises:
        EngineError: this transformers does not know the model, or it needs code of its own.
    """
    config: dict[str, Any] = storage.read_json(folder / "config.json")
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type", "")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise EngineError(
                f"the model in {folder} brings code of its own (trust_remote_code), and mllmrec runs none; take a "
                'version that transformers knows, or serve it elsewhere and use engine = "openai"'
            )
        raise EngineError(
            f"transformers {version('transformers')} does not know the model type {kind!r} of "
            f"{folder}; pip install -U transformers"
        )
    return config


def sees_pictures(settings: Mapping[str, Any]) -> bool:
    """Return whether a model of this config.json takes pictures."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return settings.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def check_backend(settings: dict[str, Any], config: TransformersConfig) -> None:
    """Refuse a backend or a quantization that is not installed, before anything is loaded.

    Args:
        settings: the model's config.json.
        config: of the engine.

    Raises:
        EngineError: a package is missing, broken or does not fit, or the backend does not run this model.
    """
    if config.backend == "openvino":
        openvino_model.check(settings, config)
    elif stored := stored_quantization(settings):
        _check_stored(stored, config)
    elif config.quantize != "none":
        _check_quanto(config)


def stored_quantization(settings: dict[str, Any]) -> str:
    """Return how a checkpoint's weights are quantized already, such as gptq or awq; empty if they are not."""
    return str((settings.get("quantization_config") or {}).get("quant_method", ""))


def _check_stored(stored: str, config: TransformersConfig) -> None:
    if config.quantize != "none":
        raise EngineError(
            f'the weights are quantized already ({stored}), so transformers.quantize = "{config.quantize}" cannot be; '
            'set it to "none"'
        )
    missing = [name for name in _LOADED_BY.get(stored, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"{stored} weights are loaded by {', '.join(missing)}; pip install {' '.join(missing)}")


def _check_quanto(config: TransformersConfig) -> None:
    try:
        import optimum.quanto  # noqa: F401 - whether it imports is the question
    except Exception as error:  # a build for another torch raises what it likes
        raise EngineError(
            f'transformers.quantize = "{config.quantize}" needs optimum-quanto ({first_line(error)}); pip install '
            "'mllmrec[vlm]'"
        ) from error


def device_of(config: TransformersConfig) -> str:
    """Return the device of the settings, or the one that is there.

    Raises:
        EngineError: the settings name CUDA and no GPU answers.
    """
    import torch

    if config.backend == "openvino":
        return "cpu"
    present = torch.cuda.is_available()
    if config.device == "cuda" and not present:
        raise EngineError('transformers.device = "cuda", but torch sees no GPU; mllmrec doctor says why')
    return "cuda" if config.device != "cpu" and present else "cpu"


def dtype_of(folder: Path, config: TransformersConfig) -> str:
    """Return the precision that the settings name; by default bfloat16 where the device multiplies it.

    A CPU without such instructions, and a model so small that rounding is all it would notice, take float32.

    Args:
        folder: of the model.
        config: of the engine.
    """
    if config.dtype != "auto":
        return config.dtype
    if device_of(config) == "cuda":
        return "bfloat16"
    exact = config.backend != "torch" or config.quantize != "none" or not multiplies_bfloat16()
    return "float32" if exact or count_values(folder) < _SMALL else "bfloat16"


def count_values(folder: Path) -> int:
    """Count the weights of a model by the headers of its files."""
    return sum(count_weights(file) for file in folder.glob("*.safetensors"))


def text_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a model's language half."""
    nested: dict[str, Any] = settings.get("text_config") or settings
    return nested


def load(folder: Path, config: TransformersConfig) -> Loaded:
    """Load weights and processor.

    Raises:
        EngineError: one of them cannot be loaded.
    """
    settings = read_config(folder)
    check_backend(settings, config)
    device = device_of(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices of the libraries about their own future
            processor = load_processor(folder)
            cap_pixels(processor, config.max_pixels)
            if config.backend == "openvino":
                model = openvino_model.load(folder, settings, config)
                return Loaded(model, processor, device)
            model = _load_weights(folder, settings, config)
            return Loaded(model.to(device), processor, device)
    except EngineError:
        raise
    except Exception as error:  # the loaders raise what files, torch and missing packages raise
        raise EngineError(
            f"cannot load the model in {folder}: {first_line(error)}; mllmrec doctor says what is broken"
        ) from error


def _load_weights(folder: Path, settings: Mapping[str, Any], config: TransformersConfig) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the stage has its own
    kind: Any = AutoModelForImageTextToText if sees_pictures(settings) else AutoModelForCausalLM
    model = kind.from_pretrained(
        folder,
        dtype=getattr(torch, dtype_of(folder, config)),
        trust_remote_code=False,
        use_safetensors=True,
        **_attention(folder, config),
    )
    return _quantized(model.eval(), config.quantize)


def _attention(folder: Path, config: TransformersConfig) -> dict[str, str]:
    """Return flash-attn where it is installed and fits; else transformers picks (SDPA, or eager where that is all)."""
    if config.attention != "auto":
        return {"attn_implementation": config.attention}
    fits = device_of(config) == "cuda" and dtype_of(folder, config) in ("bfloat16", "float16")
    if fits and importlib.util.find_spec("flash_attn") is not None:
        return {"attn_implementation": "flash_attention_2"}
    return {}


def _quantized(model: Any, weights: str) -> Any:
    """Quantize the linear layers to int8 or int4; the head stays as it is, where a rounding costs most."""
    if weights == "none":
        return model
    from optimum.quanto import freeze, qint4, qint8, quantize

    quantize(model, weights={"int8": qint8, "int4": qint4}[weights], exclude=["lm_head", "*.lm_head"])
    freeze(model)
    return model


def weight_bytes(folder: Path, settings: dict[str, Any], config: TransformersConfig) -> int:
    """Estimate the bytes of the weights by the files' headers; by their sizes where quantized already.

    Args:
        folder: of the model.
        settings: its config.json.
        config: of the engine.
    """
    if stored_quantization(settings):
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    values = count_values(folder)
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype_of(folder, config)]
    return int(values * {"none": width, "int8": 1, "int4": 0.56}[config.quantize])


def kv_bytes_per_token(settings: dict[str, Any]) -> int:
    """Return the bytes of keys and values of one token in half precision, all layers."""
    text = text_settings(settings)
    heads = text.get("num_attention_heads", 1)
    width = text.get("head_dim") or text.get("hidden_size", 1) // heads
    return int(2 * 2 * text.get("num_hidden_layers", 1) * (text.get("num_key_value_heads") or heads) * width)


def free_memory() -> None:
    """Give back what nothing refers to any more, on the GPU too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
