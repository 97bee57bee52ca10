"""A model of the `transformers` engine that OpenVINO computes: faster on CPUs, and the same tokens in float32.

It is converted once, by optimum-intel, into the cache of converted models, and generates through transformers as
the weights themselves do. optimum-intel converts a family up to some version of transformers, which is checked
before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllmrec.config import TransformersConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.converted_model import converted, quiet, require

_SETTING = 'transformers.backend = "openvino"'
# By itself the CPU plugin would take bfloat16, and keys, values and activations of eight bits.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
# Families whose padded batches were seen to give the tokens of single requests. Those of llava do not (optimum-intel
# 2.2.0), so whatever is not listed here is asked one request at a time.
_PADDED = ("idefics3", "smolvlm", "qwen2_5_vl", "qwen3_vl")


def check(settings: Mapping[str, Any], config: TransformersConfig) -> None:
    """Refuse what OpenVINO cannot do here, before anything is loaded.

    Args:
        settings: the model's config.json.
        config: of the engine.

    Raises:
        EngineError: a package is missing or does not fit, the settings ask for more than it does, or it does not
            convert this family under this version of transformers.
    """
    require("openvino", "transformers.backend")
    if config.device == "cuda" or config.dtype not in ("auto", "float32") or config.kv_cache != "dynamic":
        raise EngineError(
            f"{_SETTING} runs on the CPU in float32 with a cache of its own; leave transformers.device, .dtype and "
            ".kv_cache as they are by default"
        )
    _check_family(str(settings["model_type"]), _task(settings))


def load(folder: Path, settings: Mapping[str, Any], config: TransformersConfig, identity: str) -> Any:
    """The model, compiled; converted first where the cache has no conversion of it.

    Args:
        folder: the model's own.
        settings: its config.json.
        config: of the engine.
        identity: what tells its weights from others.
    """
    from optimum.intel.openvino import OVModelForCausalLM, OVModelForVisualCausalLM

    kind: Any = OVModelForVisualCausalLM if _task(settings) == "image-text-to-text" else OVModelForCausalLM

    def convert(made: Path) -> None:
        model = kind.from_pretrained(
            folder, export=True, compile=False, trust_remote_code=False, **_weights(config.quantise)
        )
        model.save_pretrained(made)

    with quiet():
        made = converted("openvino", {"model": identity, "weights": config.quantise}, convert)
        return kind.from_pretrained(made, export=False, trust_remote_code=False, ov_config=_EXACT)


def pads(settings: Mapping[str, Any]) -> bool:
    """Whether requests of uneven length may go in one batch."""
    return "vision_config" not in settings or settings["model_type"] in _PADDED


def _task(settings: Mapping[str, Any]) -> str:
    return "image-text-to-text" if "vision_config" in settings else "text-generation-with-past"


def _weights(quantise: str) -> dict[str, Any]:
    """Weights as they are, or compressed by nncf, which optimum-intel brings."""
    if quantise == "none":
        return {"load_in_8bit": False}
    from optimum.intel.openvino import OVWeightQuantizationConfig

    return {"quantization_config": OVWeightQuantizationConfig(bits={"int8": 8, "int4": 4}[quantise])}


def _check_family(family: str, task: str) -> None:
    import optimum.exporters.openvino.model_configs  # noqa: F401 - registers what can be converted
    from optimum.exporters.tasks import TasksManager
    from packaging.version import Version

    try:
        found: Any = TasksManager.get_exporter_config_constructor(
            "openvino", model_type=family, task=task, library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise EngineError(
            f"{_SETTING}: optimum-intel {version('optimum-intel')} converts no {family} model; leave it at torch"
        ) from error
    most = getattr(getattr(found, "func", found), "MAX_TRANSFORMERS_VERSION", None)
    if most and Version(version("transformers")) > Version(str(most)):
        raise EngineError(
            f"{_SETTING}: optimum-intel {version('optimum-intel')} converts {family} models up to transformers {most}, "
            f"and {version('transformers')} is installed; pip install 'transformers<={most}', or leave it at torch"
        )
