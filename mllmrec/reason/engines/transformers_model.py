"""A model folder found, told apart from others, and loaded: weights, processor, precision, quantisation.

Whatever the hub, the files or the machine refuse comes out as one line. Code that comes with a model is never
run; weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.config import TransformersConfig
from mllmrec.errors import EngineError, first_line
from mllmrec.foundation import storage
from mllmrec.reason.engines import openvino_model
from mllmrec.reason.engines.transformers_processor import cap_pixels, load_processor

_WANTED = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
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


def locate(name: str, revision: str) -> Path:
    """The local folder of a model: a path as it is, a hub name through the hub's cache, downloaded if need be.

    What the cache holds is used without asking the hub, so a run does not change because a model moved on.

    Raises:
        EngineError: there is no such folder or model, it is gated, or the hub cannot be reached.
    """
    if Path(name).is_dir():
        folder = Path(name)
        if not (folder / "config.json").is_file():
            raise EngineError(
                f"{folder} is no model: it has no config.json; give the folder that save_pretrained wrote"
            )
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise EngineError(f"there is no model folder {name!r}; give a Hugging Face name such as org/model, or a folder")
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import errors

    def snapshot(*, local: bool) -> Path:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=list(_WANTED), local_files_only=local)
        )

    fetch = f"on a machine with access run: hf download {name} --revision {revision}"
    try:
        return snapshot(local=True)
    except FileNotFoundError:
        pass
    try:
        return snapshot(local=False)
    except errors.GatedRepoError as error:
        raise EngineError(
            f"the model {name!r} is gated: accept its terms at https://huggingface.co/{name}, then log in with "
            "hf auth login, or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EngineError(
            f"the hub has no model {name!r}, or it is private; check the name, or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise EngineError(f"the model {name!r} has no revision {revision!r}; check transformers.revision") from error
    except Exception as error:  # whatever the network raises
        raise EngineError(
            f"the files of the model {name!r} (config.json and weights, revision {revision!r}) are not in the local "
            f"cache, and the hub cannot be reached ({first_line(error)}); {fetch}, and copy the cache, or give a "
            "folder"
        ) from error


def identity(folder: Path) -> str:
    """What tells models apart: small files by their whole content, weights by size and samples of their bytes."""
    hasher = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".txt", ".model"):
            hasher.update(f"{file.name} {storage.hash_file(file)}\n".encode())
        elif file.suffix == ".safetensors":
            hasher.update(f"{file.name} {storage.hash_samples(file)}\n".encode())
    return hasher.hexdigest()[:24]


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json, checked for what would stop a run before any weight is read.

    Raises:
        EngineError: this transformers does not know the model, or it wants code of its own.
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
            f"transformers {importlib.metadata.version('transformers')} does not know the model type {kind!r} of "
            f"{folder}; pip install -U transformers"
        )
    return config


def check_backend(settings: dict[str, Any], config: TransformersConfig) -> None:
    """Refuse a backend or a quantisation that is not installed, before anything is loaded.

    Args:
        settings: the model's config.json.
        config: of the engine.

    Raises:
        EngineError: a package is missing, broken or does not fit, or the backend does not run this model.
    """
    if config.backend == "openvino":
        openvino_model.check(settings, config)
    elif stored := stored_quantisation(settings):
        _check_stored(stored, config)
    elif config.quantise != "none":
        _check_quanto(config)


def stored_quantisation(settings: dict[str, Any]) -> str:
    """How a checkpoint's weights are quantised already, such as gptq or awq; empty where they are not."""
    return str((settings.get("quantization_config") or {}).get("quant_method", ""))


def _check_stored(stored: str, config: TransformersConfig) -> None:
    if config.quantise != "none":
        raise EngineError(
            f'the weights are quantised already ({stored}), so transformers.quantise = "{config.quantise}" cannot be; '
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
            f'transformers.quantise = "{config.quantise}" needs optimum-quanto ({first_line(error)}); pip install '
            "'mllmrec[vlm]'"
        ) from error


def device_of(config: TransformersConfig) -> str:
    """The device that is asked for, or the one that is there.

    Raises:
        EngineError: CUDA is asked for and no GPU answers.
    """
    import torch

    if config.backend == "openvino":
        return "cpu"
    present = torch.cuda.is_available()
    if config.device == "cuda" and not present:
        raise EngineError('transformers.device = "cuda", but torch sees no GPU; mllmrec doctor says why')
    return "cuda" if config.device != "cpu" and present else "cpu"


def dtype_of(config: TransformersConfig) -> str:
    """float32 on a CPU, bfloat16 on a GPU, unless another is asked for."""
    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if device_of(config) == "cuda" else "float32"


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
                model = openvino_model.load(folder, settings, config, identity(folder))
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

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the stage has a progress of its own
    sees = type(AutoConfig.from_pretrained(folder, trust_remote_code=False)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = kind.from_pretrained(
        folder,
        dtype=getattr(torch, dtype_of(config)),
        trust_remote_code=False,
        use_safetensors=True,
        **_attention(config),
    )
    return _quantised(model.eval(), config.quantise)


def _attention(config: TransformersConfig) -> dict[str, str]:
    """flash-attn where it is installed and fits; else what transformers picks (SDPA, or eager where that is all)."""
    if config.attention != "auto":
        return {"attn_implementation": config.attention}
    fits = device_of(config) == "cuda" and dtype_of(config) in ("bfloat16", "float16")
    if fits and importlib.util.find_spec("flash_attn") is not None:
        return {"attn_implementation": "flash_attention_2"}
    return {}


def _quantised(model: Any, quantise: str) -> Any:
    """Weights of the linear layers as int8 or int4; the head stays as it is, where a rounding costs most."""
    if quantise == "none":
        return model
    from optimum.quanto import freeze, qint4, qint8, quantize

    quantize(model, weights={"int8": qint8, "int4": qint4}[quantise], exclude=["lm_head", "*.lm_head"])
    freeze(model)
    return model


def weight_bytes(folder: Path, settings: dict[str, Any], config: TransformersConfig) -> int:
    """About how much memory the weights take: by the files' headers; by their sizes where quantised already."""
    if stored_quantisation(settings):
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    values = sum(_count_values(file) for file in folder.glob("*.safetensors"))
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype_of(config)]
    return int(values * {"none": width, "int8": 1, "int4": 0.56}[config.quantise])


def _count_values(file: Path) -> int:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if size > 100 << 20:
            raise EngineError(f"{file} is no safetensors file: its header claims {size >> 20} MiB")
        try:
            header = json.loads(opened.read(size))
        except ValueError as error:
            raise EngineError(f"{file} is no safetensors file: its header is not JSON") from error
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for side in entry["shape"]:
                count *= side
            total += count
    return total
