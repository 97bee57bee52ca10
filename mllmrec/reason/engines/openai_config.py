"""How a chat server is reached and asked; defaults live here and nowhere else."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_HIDDEN = "(not shown)"
_VARIABLE = r"^([A-Z_][A-Z0-9_]*)?$"


def _hide_key(value: Any) -> Any:
    """A key given where its variable's name belongs must not come back in the error message."""
    return value if isinstance(value, str) and re.fullmatch(_VARIABLE, value) else _HIDDEN


def _hide_credentials(value: Any) -> Any:
    """An address that holds a password or a query, which often is a key, must not come back either."""
    try:
        parts = urlsplit(value)
        return _HIDDEN if parts.username or parts.password or parts.query or parts.fragment else value
    except (ValueError, TypeError, AttributeError):
        return _HIDDEN


class ServerConfig(BaseModel):
    """An OpenAI-compatible server: vLLM, SGLang, Ollama, llama.cpp, `transformers serve`, or a paid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Up to and with the version, without user, password or query.
    base_url: Annotated[str, BeforeValidator(_hide_credentials), Field(pattern=r"^https?://[^/\s]+(/\S*)?$")] = (
        "http://127.0.0.1:8000/v1"
    )
    # The environment variable that holds the key, never the key; empty: the server wants none.
    api_key_env: Annotated[str, BeforeValidator(_hide_key), Field(pattern=_VARIABLE)] = ""
    revision: str = ""  # free words that tell a model from an earlier one of the same name
    temperature: Annotated[float, Field(ge=0)] = 0.0  # 0: greedy
    image_side: Annotated[int, Field(gt=0)] = 768  # longest side of a picture that is sent, pixels
    concurrency: Annotated[int, Field(gt=0)] = 64  # the most requests at once; how many it is, is learnt
    attempts: Annotated[int, Field(gt=0)] = 6
    request_seconds: Annotated[float, Field(gt=0)] = 300.0  # one attempt
    total_seconds: Annotated[float, Field(gt=0)] = 1800.0  # all attempts of one request, waits included
    response_bytes: Annotated[int, Field(gt=0)] = 4 << 20


class ChatServerConfig(ServerConfig):
    """A server, and what one stage asks of it."""

    model: str = ""  # as the server calls it
    max_tokens: Annotated[int, Field(gt=0)] = 256  # new tokens an answer
    seed: Annotated[int, Field(ge=0)] = 999
