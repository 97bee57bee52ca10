"""Load a model by OpenVINO: what that takes, and its conversion.

optimum-intel converts the model once, into the cache of converted models. It then generates through transformers, with
the same tokens in float32. Versions that fit are checked before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.converted_model import converted, quiet, require
from mllmrec.foundation.model_folder import identity

_OPENVINO = 'transformers.backend = "openvino"'
# By itself the CPU plugin would take bfloat16, and keys, values and activations of eight bits.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
# Families whose padded batches were seen to give the tokens of single requests. Those of llava do not (optimum-intel
# 2.2.0), so whatever is not listed here is asked one request at a time.
_PADDED = ("idefics3", "smolvlm", "qwen2_5_vl", "qwen3_vl")


def check(settings: Mapping[str, Any], config: TransformersConfig) -> None:
    """Refuse what OpenVINO cannot do here, before anything is loaded.

    Raises:
        EngineError: a package or a setting does not fit, or optimum-intel converts no model of this family.
    """
    require("openvino", "transformers.backend")
    if config.device == "cuda" or config.dtype not in ("auto", "float32") or config.kv_cache != "dynamic":
        raise EngineError(
            f"{_OPENVINO} runs on the CPU in float32 with a cache of its own; leave transformers.device, .dtype and "
            ".kv_cache as they are by default"
        )
    _check_family(str(settings["model_type"]), _task(settings))


def load(folder: Path, settings: Mapping[str, Any], config: TransformersConfig) -> Any:
    """Load the compiled model; convert it first where the cache has no conversion of it.

    Args:
        folder: of the model.
        settings: its config.json.
        config: of the engine.
    """
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
