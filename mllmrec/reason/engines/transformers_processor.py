"""Load the processor of a model, and bring prompts and pictures into its shape.

Several families (Qwen-VL, SmolVLM) load no processor without torchvision, which only their video half needs. No
video is ever given to it here, so it is put together without.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from mllmrec.errors import EngineError, MllmrecError, first_line
from mllmrec.foundation import storage
from mllmrec.foundation.images import open_image
from mllmrec.reason.answer_text import has_thought_marks, opens_thought
from mllmrec.reason.engine import ChatRequest, Finish, Reply

_DECODERS = 8


def load_processor(folder: Path) -> Any:
    """Load tokenizer, chat template and picture preprocessing of a model folder; padding goes on the left.

    Raises:
        EngineError: the model has no chat template.
    """
    import transformers

    auto: Any = transformers.AutoProcessor
    try:
        processor: Any = auto.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        if "orchvision" not in str(error):
            raise
        processor = _without_video(folder)
    if isinstance(processor, transformers.PreTrainedTokenizerBase):
        processor = TextOnly(processor)
    if not getattr(processor, "chat_template", None):
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    if not processor.chat_template:
        raise EngineError(f"the model in {folder} has no chat template; take its instruction-tuned version")
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def load_tokenizer(folder: Path) -> Any:
    """Load only the tokenizer of a model folder.

    Raises:
        EngineError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the loader raises what the files make it raise
        raise EngineError(f"cannot load the tokenizer of the model in {folder}: {first_line(error)}") from error


class TextOnly:
    """The tokenizer of a model without eyes, in the shape of a processor: such a model can write profiles."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.chat_template = tokenizer, tokenizer.chat_template

    def apply_chat_template(self, turns: list[dict[str, Any]], **settings: Any) -> str:
        """Return the prompt; templates of text models take the content of a turn as one string."""
        plain = [turn | {"content": "".join(part.get("text", "") for part in turn["content"])} for turn in turns]
        return str(self.tokenizer.apply_chat_template(plain, **settings))

    def __call__(self, *, text: list[str], images: Any, **settings: Any) -> Any:
        """Return token ids.

        Raises:
            EngineError: there are pictures.
        """
        if images:
            raise EngineError("this model reads no pictures; describe.model must be one that does")
        from transformers import BatchFeature

        return BatchFeature(dict(self.tokenizer(text, **settings)))


def _without_video(folder: Path) -> Any:
    import transformers

    pictures: Any = transformers.AutoImageProcessor
    settings: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings |= storage.read_json(folder / name)
    kind = getattr(transformers, str(settings.get("processor_class", "")), None)
    if kind is None or "video_processor" not in _attributes(kind):
        raise EngineError(f"the processor of {folder} needs torchvision; mllmrec doctor says how to install it")
    own = {name: value for name, value in settings.items() if name in ("image_seq_len", "patch_size")}
    return _pictures_only(kind)(
        image_processor=pictures.from_pretrained(folder, trust_remote_code=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        video_processor=SimpleNamespace(num_frames=None, fps=None),  # templates read them without a video too
        chat_template=_chat_template(folder, settings),
        **own,
    )


def _attributes(kind: Any) -> list[str]:
    """Return the parts of a processor class; transformers 4 lists them, 5 derives them."""
    return list(kind.get_attributes() if hasattr(kind, "get_attributes") else kind.attributes)


def _pictures_only(kind: type[Any]) -> type[Any]:
    """Return a processor class that takes anything for its video half."""

    class PicturesOnly(kind):  # type: ignore[misc]  # the class is known at run time only
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name != "video_processor":
                return super().check_argument_for_proper_class(argument_name, argument)
            return None

    return PicturesOnly


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        return str(storage.read_json(folder / "chat_template.json")["chat_template"])
    return settings.get("chat_template")


def thinks(folder: Path) -> bool:
    """Return whether the chat template of a model folder knows thoughts: such a model thinks before it answers."""
    settings: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings |= storage.read_json(folder / name)
    template = _chat_template(folder, settings)
    return isinstance(template, str) and ("enable_thinking" in template or has_thought_marks(template))


def cap_pixels(processor: Any, most: int) -> None:
    """Hold back processors that enlarge or tile pictures: the result has at most `most` pixels, or one tile.

    Pictures themselves are shrunk before; this is for those that would be blown up again.
    """
    images = getattr(processor, "image_processor", None)
    size: Any = getattr(images, "size", None)
    if images is None or not hasattr(size, "get"):
        return
    if hasattr(images, "merge_size") and size.get("longest_edge"):  # Qwen-VL: counts of pixels, not sides
        size["longest_edge"] = max(min(size["longest_edge"], most), size.get("shortest_edge") or 0)
    elif getattr(images, "do_image_splitting", False):  # Idefics3, SmolVLM: as many tiles as the longest edge has
        tile = int(images.max_image_size["longest_edge"])
        size["longest_edge"] = min(size["longest_edge"], tile * max(1, math.isqrt(most) // tile))
    if getattr(images, "crop_to_patches", False) and size.get("height"):  # InternVL
        images.max_patches = max(1, min(images.max_patches, most // (size["height"] * size["width"])))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch as the model takes it.

    Attributes:
        inputs: of the processor, None if no request is left.
        rows: the number of the request behind each row.
        thinking: whether the prompt of each row ends in an open thought.
        refused: why a request has no row.
    """

    inputs: Any
    rows: list[int]
    thinking: list[bool]
    refused: dict[int, str]


def prepare(processor: Any, requests: Sequence[ChatRequest], numbers: Sequence[int], max_pixels: int) -> Prepared:
    """Decode and shrink pictures, render prompts, and put both through the processor.

    Args:
        processor: of the model.
        requests: of the whole call.
        numbers: of the requests of this batch.
        max_pixels: of a picture.
    """
    with ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1)) as decoders:
        opened = list(decoders.map(lambda n: open_pictures(requests[n].images, max_pixels), numbers))
    rows, refused, pictures = list[int](), dict[int, str](), []
    for n, result in zip(numbers, opened, strict=True):
        if isinstance(result, str):
            refused[n] = result
        else:
            rows.append(n)
            pictures.append(result)
    if not rows:
        return Prepared(None, rows, [], refused)
    texts = [render(processor, requests[n]) for n in rows]
    inputs = processor(
        text=texts,
        images=pictures if any(pictures) else None,
        padding=True,
        return_tensors="pt",
        add_special_tokens=not begins(processor.tokenizer, texts[0]),
    )
    return Prepared(inputs, rows, [opens_thought(text) for text in texts], refused)


def render(processor: Any, request: ChatRequest) -> str:
    """Return the prompt by the model's own chat template; its special tokens are taken out of the request.

    Templates without a system role get the system text at the head of the user's turn.
    """
    from jinja2 import TemplateError

    system = _plain(processor.tokenizer, request.system)
    questions = [_plain(processor.tokenizer, text) for text in (*(one for one, _ in request.examples), request.text)]
    try:
        prompt = _render(processor, request, questions, system)
    except TemplateError:
        prompt = _render(processor, request, [f"{system}\n\n{questions[0]}".strip(), *questions[1:]], "")
    return f"{prompt}{request.opening}"


def _render(processor: Any, request: ChatRequest, questions: Sequence[str], system: str) -> str:
    """Return the turns by the chat template: the system's, each example's, and the request's with its pictures."""
    turns = [_turn("system", system)] if system else []
    for question, (_, answer) in zip(questions, request.examples, strict=False):
        turns += [_turn("user", question), _turn("assistant", answer)]
    last = _turn("user", questions[-1])
    last["content"] = [*({"type": "image"} for _ in request.images), *last["content"]]
    return str(processor.apply_chat_template([*turns, last], add_generation_prompt=True, tokenize=False))


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def begins(tokenizer: Any, text: str) -> bool:
    """Return whether a rendered prompt has its beginning-of-text token; tokenizers would add a second one."""
    return bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)


def _plain(tokenizer: Any, text: str) -> str:
    for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
        text = text.replace(token, " ")
    return text


def open_pictures(paths: Sequence[Path], most: int) -> list[Image.Image] | str:
    """Return the pictures, none with more than `most` pixels, or why one of them cannot be used."""
    try:
        return [shrink(open_image(path, side=2 * math.isqrt(most)), most) for path in paths]
    except MllmrecError as error:
        return str(error)


def shrink(image: Image.Image, most: int) -> Image.Image:
    """Return a picture of at most `most` pixels, its aspect kept."""
    width, height = image.size
    if width * height <= most:
        return image
    scale = math.sqrt(most / (width * height))
    return image.resize((max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.BICUBIC)


def to_reply(tokenizer: Any, tokens: list[int], ends: Collection[int]) -> Reply:
    """Return the reply in new tokens.

    Args:
        tokenizer: of the model.
        tokens: new ones of an answer, padding after its end included.
        ends: tokens that end an answer; without one of them it was cut.
    """
    finish: Finish = "stop" if set(ends) & set(tokens) else "length"
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    marked = tokenizer.decode(tokens, skip_special_tokens=False)
    if has_thought_marks(marked) and not has_thought_marks(text):
        text = marked  # some tokenizers call the marks of a thought special, and drop them
    return Reply(text.strip(), finish)


def end_tokens(ends: int | Sequence[int] | None) -> set[int]:
    """Return the tokens that end an answer, as a set, from the forms that a generation config has them in."""
    return {ends} if isinstance(ends, int) else set(ends or ())
