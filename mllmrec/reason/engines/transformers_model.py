"""Load a model of the `transformers` engine: weights, processor, precision, quantization, backend.

Whatever the files or the machine refuse comes out as one line. Code that comes with a model is never run; weights are
read from safetensors only.

With the OpenVINO backend, optimum-intel converts the model once, into the cache of converted models. It then generates
through transformers, with the same tokens in float32. Versions that fit are checked before anything is loaded.
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
from mllmrec.foundation.converted_model import converted, quiet, require
from mllmrec.foundation.model_folder import count_weights, identity
from mllmrec.reason.engines.transformers_processor import cap_pixels, load_processor

# What transformers loads such weights with; other methods say themselves what they need.
_LOADED_BY = {"gptq": ("gptqmodel", "optimum"), "awq": ("gptqmodel", "accelerate")}

_OPENVINO = 'transformers.backend = "openvino"'
# By itself the CPU plugin would take bfloat16, and keys, values and activations of eight bits.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
# Families whose padded batches were seen to give the tokens of single requests. Those of llava do not (optimum-intel
# 2.2.0), so whatever is not listed here is asked one request at a time.
_PADDED = ("idefics3", "smolvlm", "qwen2_5_vl", "qwen3_vl")


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


def check_backend(settings: dict[str, Any], config: TransformersConfig) -> None:
    """Refuse a backend or a quantization that is not installed, before anything is loaded.

    Args:
        settings: the model's config.json.
        config: of the engine.

    Raises:
        EngineError: a package is missing, broken or does not fit, or the backend does not run this model.
    """
    if config.backend == "openvino":
        _check_openvino(settings, config)
    elif stored := stored_quantization(settings):
        _check_stored(stored, config)
    elif config.quantize != "none":
        _check_quanto(config)


def stored_quantization(settings: dict[str, Any]) -> str:
    """Return how a checkpoint's weights are quantized already, such as gptq or awq; empty where they are not."""
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


def dtype_of(config: TransformersConfig) -> str:
    """Return float32 on a CPU and bfloat16 on a GPU, unless the settings name another."""
    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if device_of(config) == "cuda" else "float32"


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
                model = _load_openvino(folder, settings, config)
                return Loaded(model, processor, device)
            model = _load_weights(folder, config)
            return Loaded(model.to(device), processor, device)
    except EngineError:
        raise
    except Exception as error:  # the loaders raise what files, torch and missing packages raise
        raise EngineError(
            f"cannot load the model in {folder}: {first_line(error)}; mllmrec doctor says what is broken"
        ) from error


def _load_weights(folder: Path, config: TransformersConfig) -> Any:
    import torch
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the stage has its own
    sees = type(AutoConfig.from_pretrained(folder, trust_remote_code=False)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = kind.from_pretrained(
        folder,
        dtype=getattr(torch, dtype_of(config)),
        trust_remote_code=False,
        use_safetensors=True,
        **_attention(config),
    )
    return _quantized(model.eval(), config.quantize)


def _attention(config: TransformersConfig) -> dict[str, str]:
    """Return flash-attn where it is installed and fits; else transformers picks (SDPA, or eager where that is all)."""
    if config.attention != "auto":
        return {"attn_implementation": config.attention}
    fits = device_of(config) == "cuda" and dtype_of(config) in ("bfloat16", "float16")
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
    values = sum(count_weights(file) for file in folder.glob("*.safetensors"))
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype_of(config)]
    return int(values * {"none": width, "int8": 1, "int4": 0.56}[config.quantize])


def _check_openvino(settings: Mapping[str, Any], config: TransformersConfig) -> None:
    """Refuse what OpenVINO cannot do here, before anything is loaded."""
    require("openvino", "transformers.backend")
    if config.device == "cuda" or config.dtype not in ("auto", "float32") or config.kv_cache != "dynamic":
        raise EngineError(
            f"{_OPENVINO} runs on the CPU in float32 with a cache of its own; leave transformers.device, .dtype and "
            ".kv_cache as they are by default"
        )
    _check_family(str(settings["model_type"]), _task(settings))


def _load_openvino(folder: Path, settings: Mapping[str, Any], config: TransformersConfig) -> Any:
    """Load the compiled model; convert it first where the cache has no conversion of it."""
    from optimum.intel.openvino import OVModelForCausalLM, OVModelForVisualCausalLM

    kind: Any = OVModelForVisualCausalLM if _task(settings) == "image-text-to-text" else OVModelForCausalLM

    def convert(target: Path) -> None:
        model = kind.from_pretrained(
            folder, export=True, compile=False, trust_remote_code=False, **_openvino_weights(config.quantize)
        )
        model.save_pretrained(target)

    with quiet():
        compiled = converted("openvino", {"model": identity(folder), "weights": config.quantize}, convert)
        return kind.from_pretrained(compiled, export=False, trust_remote_code=False, ov_config=_EXACT)


def pads(settings: Mapping[str, Any]) -> bool:
    """Return whether OpenVINO takes requests of uneven length in one batch."""
    return "vision_config" not in settings or settings["model_type"] in _PADDED


def _task(settings: Mapping[str, Any]) -> str:
    return "image-text-to-text" if "vision_config" in settings else "text-generation-with-past"


def _openvino_weights(quantize: str) -> dict[str, Any]:
    """Return settings for weights as they are, or compressed by nncf, which optimum-intel brings."""
    if quantize == "none":
        return {"load_in_8bit": False}
    from optimum.intel.openvino import OVWeightQuantizationConfig

    return {"quantization_config": OVWeightQuantizationConfig(bits={"int8": 8, "int4": 4}[quantize])}


def _check_family(family: str, task: str) -> None:
    import optimum.exporters.openvino.model_configs  # noqa: F401 - registers what can be converted
    from optimum.exporters.tasks import TasksManager
    from packaging.version import Version

    try:
        exporter: Any = TasksManager.get_exporter_config_constructor(
            "openvino", model_type=family, task=task, library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise EngineError(
            f"{_OPENVINO}: optimum-intel {version('optimum-intel')} converts no {family} model; leave it at torch"
        ) from error
    most = getattr(getattr(exporter, "func", exporter), "MAX_TRANSFORMERS_VERSION", None)
    if most and Version(version("transformers")) > Version(str(most)):
        raise EngineError(
            f"{_OPENVINO}: optimum-intel {version('optimum-intel')} converts {family} models up to transformers "
            f"{most}, and {version('transformers')} is installed; pip install 'transformers<={most}', or leave it at "
            "torch"
        )
