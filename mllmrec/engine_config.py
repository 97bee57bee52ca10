"""Settings of the engines that generate: a model in this process, or one behind a server."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_HIDDEN = "(not shown)"
_VARIABLE = r"^([A-Z_][A-Z0-9_]*)?$"


class TransformersConfig(BaseModel):
    """Generation in this process, for describe and profile alike."""

    model_config = _FROZEN
    revision: str = "main"  # of a model from the hub
    backend: Literal["torch", "openvino"] = "torch"  # openvino: on CPUs, converted when first asked for; an extra
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where the device has it
    quantize: Literal["none", "int8", "int4"] = "none"  # weights; by optimum-quanto, or by the backend's own tool
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    kv_cache: Literal["dynamic", "static"] = "dynamic"  # static: of a fixed size, which transformers compiles on a GPU
    batch_size: NonNegativeInt = 0  # requests at once, at most; 0: 16 or 32 on a CPU, 128 on a GPU
    batch_tokens: NonNegativeInt = 0  # at once, with padding; 0: 16,384 on a CPU, half the free memory on a GPU
    max_pixels: PositiveInt = 200_704  # of a picture, as the model sees it: 448 x 448
    temperature: NonNegativeFloat = 0.0  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0


def _hide_key(value: Any) -> Any:
    """Hide a key that stands where its variable's name belongs: error messages show the value."""
    return value if isinstance(value, str) and re.fullmatch(_VARIABLE, value) else _HIDDEN


def _hide_credentials(value: Any) -> Any:
    """Hide an address with a password or a query, which often is a key."""
    try:
        parts = urlsplit(value)
        return _HIDDEN if parts.username or parts.password or parts.query or parts.fragment else value
    except (ValueError, TypeError, AttributeError):
        return _HIDDEN


class ServerConfig(BaseModel):
    """An OpenAI-compatible server: vLLM, SGLang, Ollama, llama.cpp, `transformers serve`, or a paid one."""

    model_config = _FROZEN
    # Up to and with the version, without user, password or query.
    base_url: Annotated[str, BeforeValidator(_hide_credentials), Field(pattern=r"^https?://[^/\s]+(/\S*)?$")] = (
        "http://127.0.0.1:8000/v1"
    )
    # The environment variable that holds the key, never the key; empty: the server needs none.
    api_key_env: Annotated[str, BeforeValidator(_hide_key), Field(pattern=_VARIABLE)] = ""
    revision: str = ""  # free words that tell a model from an earlier one of the same name
    temperature: NonNegativeFloat = 0.0  # 0: greedy
    image_side: PositiveInt = 768  # longest side of a picture that is sent, pixels
    concurrency: PositiveInt = 64  # the most requests at once; the number in use is learnt
    attempts: PositiveInt = 6
    request_seconds: PositiveFloat = 300.0  # one attempt
    total_seconds: PositiveFloat = 1800.0  # all attempts of one request, waits included
    response_bytes: PositiveInt = 4 << 20


class ChatServerConfig(ServerConfig):
    """A server, and what one stage adds."""

    model: str = ""  # as the server calls it
    max_tokens: PositiveInt = 256  # new tokens per answer
    seed: NonNegativeInt = 999
