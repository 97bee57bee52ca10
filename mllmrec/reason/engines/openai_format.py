"""The OpenAI chat format: a request as a JSON body, a JSON body as a reply. Knows no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from mllmrec.foundation.images import open_image
from mllmrec.reason.chat import ChatRequest, Finish, Reply
from mllmrec.reason.engines.openai_config import ChatServerConfig

VERSION = "openai-chat 1"
"""Changes when what is sent for one request changes."""
CHAT_PATH = "/chat/completions"
_JPEG_QUALITY = 90
_REASON = 200  # characters of a server's own words that are kept
_FINISHES: dict[Any, Finish] = {"stop": "stop", "length": "length", None: "stop", "eos": "stop"}


class NotACompletionError(ValueError):
    """A body that is no chat completion; the text is the reason."""


def chat_body(request: ChatRequest, config: ChatServerConfig) -> dict[str, Any]:
    """The body of a chat completion, pictures as data URLs before the text.

    Raises:
        ImageRefusedError: a picture cannot be used.
    """
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_url(path, config.image_side)}} for path in request.images
    ]
    # Plain text where there are no pictures: some servers of text models know no parts.
    content = [*pictures, {"type": "text", "text": request.text}] if pictures else request.text
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {
        "model": config.model,
        "messages": [*system, {"role": "user", "content": content}],
        "max_tokens": config.max_tokens,
        "temperature": config.temperature,
        "seed": config.seed,
        "stream": False,
    }


def _data_url(path: Path, side: int) -> str:
    """A picture as new JPEG bytes: nothing of the file but its pixels is sent."""
    picture = open_image(path, side=side)
    picture.thumbnail((side, side))
    packed = BytesIO()
    picture.save(packed, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"


def read_completion(body: Any) -> Reply:
    """The reply in a parsed chat completion.

    Raises:
        NotACompletionError: it is something else; the text says what.
    """
    if isinstance(body, Mapping) and body.get("error"):
        return Reply("", "failed", f"the server says: {said(body)}")
    try:
        choice = body["choices"][0]
        text, finish = _text(choice["message"]["content"]), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NotACompletionError("JSON that is no chat completion") from error
    if not isinstance(finish, str | None) or finish not in _FINISHES:
        return Reply("", "failed", f"the server ended with {one_line(finish)!r}")
    return Reply(text, _FINISHES[finish])


def _text(content: Any) -> str:
    """The text of a message: a string, or parts of which some are text; NUL and lone surrogates go."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError
    return (content or "").encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip()


def parse(raw: str) -> Any:
    """JSON.

    Raises:
        NotACompletionError: it is none.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotACompletionError("no JSON, or JSON that is cut off") from error


def said(body: Any) -> str:
    """A server's own words about an error, in one line."""
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            body = body[key]
    return one_line(body)


def one_line(value: Any) -> str:
    """Anything as a short line without control characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _REASON]).split())[:_REASON]
