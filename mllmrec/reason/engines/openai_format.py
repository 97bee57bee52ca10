"""Write requests in the OpenAI chat format, read replies from it, and name what may go wrong. Knows no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from mllmrec.engine_config import ChatServerConfig
from mllmrec.foundation.images import open_image
from mllmrec.reason.engine import ChatRequest, Finish, Reply

VERSION = "openai-chat 1"
"""Changes when what is sent for one request changes."""
CHAT_PATH = "/chat/completions"
REFUSED_FOR_GOOD = frozenset({400, 413, 415, 422, 451})
"""Statuses by which a server refuses one request, whoever sends it and whenever."""
_JPEG_QUALITY = 90
_REASON = 200  # characters of a server's own words that are shown
_FINISHES: dict[Any, Finish] = {"stop": "stop", "length": "length", None: "stop", "eos": "stop"}
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")  # vLLM and SGLang, newer vLLM, Ollama
_SIZES = ("n_params", "size", "n_vocab")  # llama.cpp's fields on the weights


class NotACompletionError(ValueError):
    """A body that is no chat completion; the text is the reason."""


class FatalError(Exception):
    """A fault that would fail every request; the text is one line for a person."""


class TransientError(Exception):
    """A fault that another attempt may mend; the text is the reason.

    Attributes:
        wait: seconds that the server asks for, None if it says nothing.
        overloaded: the server had no capacity.
        unreachable: there was no connection at all.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, overloaded: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.overloaded = overloaded
        self.unreachable = unreachable


def chat_body(request: ChatRequest, config: ChatServerConfig) -> dict[str, Any]:
    """Return the body of a chat completion, pictures as data URLs before the text.

    Raises:
        ImageRefusedError: a picture cannot be used.
    """
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_url(path, config.image_side)}} for path in request.images
    ]
    # Plain text if there are no pictures: some servers of text models know no parts.
    content = [*pictures, {"type": "text", "text": request.text}] if pictures else request.text
    before = [{"role": "system", "content": request.system}] if request.system else []
    for question, answer in request.examples:
        before += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "model": config.model,
        "messages": [*before, {"role": "user", "content": content}],
        "max_tokens": config.max_tokens,
        "temperature": config.temperature,
        "seed": config.seed,
        "stream": False,
    }


def _data_url(path: Path, side: int) -> str:
    """Return a picture as new JPEG bytes: nothing of the file but its pixels is sent."""
    picture = open_image(path, side=side)
    picture.thumbnail((side, side))
    packed = BytesIO()
    picture.save(packed, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"


def read_completion(body: object) -> Reply:
    """Return the reply in a parsed chat completion.

    Raises:
        NotACompletionError: it is something else; the text says what.
    """
    if _is_error(body):
        assert isinstance(body, Mapping)
        inner = body["error"] if isinstance(body.get("error"), Mapping) else body
        status = _status(inner.get("code"))
        return Reply("", "refused" if status in REFUSED_FOR_GOOD else "failed", f"the server says: {error_words(body)}")
    try:
        choice = body["choices"][0]  # type: ignore[index]  # hostile until read; whatever is missing raises
        message = choice["message"]
        text, finish = _text(message.get("content")), choice.get("finish_reason")
        thinking = any(bool(message.get(field)) for field in _THOUGHT_FIELDS)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NotACompletionError("JSON that is no chat completion") from error
    if not isinstance(finish, str | None) or finish not in _FINISHES:
        outcome: Finish = "refused" if finish == "content_filter" else "failed"
        return Reply("", outcome, f"the server ended with {one_line(finish)!r}")
    return Reply(text, _FINISHES[finish], thinking=thinking)


def _is_error(body: object) -> bool:
    if not isinstance(body, Mapping):
        return False
    if body.get("error") or body.get("object") == "error":
        return True
    return "choices" not in body and bool(body.get("message") or body.get("detail"))


def read_batch_row(row: Mapping[str, object]) -> Reply:
    """Return the reply in one row of batch results: a completion, or why there is none."""
    response, error = row.get("response"), row.get("error")
    body = response.get("body") if isinstance(response, Mapping) else None
    stated = response.get("status_code") if isinstance(response, Mapping) else None
    if error or stated not in (None, 200):
        code = error.get("code") if isinstance(error, Mapping) else None
        status = _status(code) if stated in (None, 200) else _status(stated)
        words = error_words(row if error else body)
        shown = f"HTTP status {status or 'unknown'}: " if stated not in (None, 200) else ""
        return Reply("", "refused" if status in REFUSED_FOR_GOOD else "failed", f"{shown}{words}")
    try:
        return read_completion(body)
    except NotACompletionError as problem:
        return Reply("", "failed", str(problem))


def _status(value: object) -> int | None:
    """Return an HTTP status as a number, None if it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == len("200"):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600 else None


def _text(content: object) -> str:
    """Return the text of a message: a string, or parts of which some are text; NUL and lone surrogates go."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError
    return (content or "").encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip()


def parse(raw: str) -> Any:
    """Parse JSON.

    Raises:
        NotACompletionError: it is none.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotACompletionError("no JSON, or JSON that is cut off") from error


def error_words(body: object) -> str:
    """Return a server's own words about an error, in one line."""
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            body = body[key]
    return one_line(body)


def error_text(raw: str) -> str:
    """Return a server's own words in the raw body of an error, in one line."""
    try:
        return error_words(parse(raw))
    except NotACompletionError:
        return one_line(raw) or "without a word"


def one_line(value: object) -> str:
    """Return anything as a short line without control characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _REASON]).split())[:_REASON]


def fingerprint(config: ChatServerConfig, identity: Mapping[str, str | int]) -> str:
    """Return everything beside the request that shapes a reply: the model and the decoding, not where it runs.

    Args:
        config: model and decoding.
        identity: the server's words on the model, see `model_identity`; nothing for a batch file.
    """
    names = ("model", "revision", "max_tokens", "temperature", "seed", "image_side")
    parts = {name: getattr(config, name) for name in names} | dict(identity)
    return " ".join([VERSION, *(f"{name}={value!r}" for name, value in parts.items())])


def model_identity(listed: object, model: str) -> dict[str, str | int]:
    """Return what a server's list of models tells of a model's weights, beside its name.

    vLLM names the folder or repository that an alias stands for (`root`), llama.cpp the sizes of the weights
    (`meta`); both shape replies. Times and owners do not.
    """
    rows = listed.get("data") if isinstance(listed, Mapping) else None
    rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    own = [row for row in rows if row.get("id") == model]
    if not own:
        return {}
    meta = own[0].get("meta")
    sizes = {name: meta.get(name) for name in _SIZES} if isinstance(meta, Mapping) else {}
    fields = {"root": own[0].get("root"), **sizes}
    return {name: value for name, value in fields.items() if isinstance(value, str | int) and value != model}
