"""The processor of a model: loaded without its video half where that cannot load, its pictures capped.

Several families (Qwen-VL, SmolVLM) load no processor without torchvision, which only their video half needs. No
video is ever given to it here, so it is put together without.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mllmrec.errors import EngineError
from mllmrec.foundation import storage


def load_processor(folder: Path) -> Any:
    """Tokenizer, chat template and picture preprocessing of a model folder, pads on the left.

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


class TextOnly:
    """The tokenizer of a model without eyes, in the shape of a processor: such a model can write profiles."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.chat_template = tokenizer, tokenizer.chat_template

    def apply_chat_template(self, turns: list[dict[str, Any]], **settings: Any) -> str:
        """The prompt; templates of text models want the content of a turn as one string."""
        plain = [turn | {"content": "".join(part.get("text", "") for part in turn["content"])} for turn in turns]
        return str(self.tokenizer.apply_chat_template(plain, **settings))

    def __call__(self, *, text: list[str], images: Any, **settings: Any) -> Any:
        """Token ids.

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
        video_processor=SimpleNamespace(
            num_frames=None, fps=None
        ),  # asked by templates, whether or not there is a video
        chat_template=_chat_template(folder, settings),
        **own,
    )


def _attributes(kind: Any) -> list[str]:
    """The parts of a processor class; transformers 4 lists them, 5 derives them."""
    return list(kind.get_attributes() if hasattr(kind, "get_attributes") else kind.attributes)


def _pictures_only(kind: type[Any]) -> type[Any]:
    """A processor class that takes anything for its video half."""

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


def cap_pixels(processor: Any, most: int) -> None:
    """Hold back processors that enlarge or tile pictures: what they make has at most `most` pixels, or one tile.

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
