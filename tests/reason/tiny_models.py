"""Vision-language models of five families, and one that only reads, with random weights, small enough for tests.

Their tokenizer knows some five hundred words, so that even random weights write words, and every answer differs
from picture to picture. They are laid out on disk as models on the hub are, and no processor class is needed to
write them: the Qwen ones have none without torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

FAMILIES = ("idefics3", "smolvlm", "llava", "qwen2_5_vl", "qwen3_vl")
_SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "sa", "tu", "ve", "zo")
_WORDS = [f"{first}{second}{last}" for first in _SYLLABLES for second in _SYLLABLES for last in ("n", "r", "")]
_IDEFICS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
_QWEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.4,  # far from the usual 0.02: answers must not all be one word
}
_SMALL_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def build(family: str, folder: Path) -> Path:
    """Write a model of a family into a folder."""
    special = {"idefics3": _IDEFICS, "smolvlm": _IDEFICS, "llava": ["<image>"], "llama": []}.get(family, _QWEN)
    tokenizer = _tokenizer(special)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<pad>", "<|im_start|>", "<|im_end|>", *special)}
    text = _TEXT | {
        "vocab_size": len(tokenizer),
        "pad_token_id": ids["<pad>"],
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    torch.manual_seed(7)
    model, pictures, processor, marker = _PARTS[family](text, ids)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.generation_config, name, text[name])
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pictures:
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
        (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.jinja").write_text(_chat_template(marker))
    return folder


def _tokenizer(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    controls = ["<pad>", "<|im_start|>", "<|im_end|>", *special]
    words = [f"\u0120{word}" for word in _WORDS]  # the byte-level sign of a space
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys([*controls, *letters, *words]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # As those of Llama and Gemma do, it puts a beginning before every text, though the chat template has one.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", vocabulary["<|im_start|>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special,
    )


def _chat_template(marker: str) -> str:
    return (
        "{%- for turn in messages -%}<|im_start|>{{ turn['role'] }}\n"
        "{%- if turn['content'] is string -%}{{ turn['content'] }}{%- else -%}"
        "{%- for part in turn['content'] -%}"
        "{%- if part['type'] == 'image' -%}" + marker + "{%- else -%}{{ part['text'] }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )


Parts = tuple[Any, dict[str, Any], dict[str, Any], str]


def _idefics(kind: str) -> Callable[[dict[str, Any], dict[str, int]], Parts]:
    def parts(text: dict[str, Any], ids: dict[str, int]) -> Parts:
        import transformers

        config = getattr(transformers, f"{kind}Config")(
            text_config={"model_type": "llama"} | text,
            vision_config=_SMALL_CLIP,
            scale_factor=2,
            image_token_id=ids["<image>"],
            pad_token_id=ids["<pad>"],
        )
        pictures = {
            "image_processor_type": f"{kind}ImageProcessor",
            "do_image_splitting": False,
            "size": {"longest_edge": 56},
            "max_image_size": {"longest_edge": 56},
        }
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        return model, pictures, {"processor_class": f"{kind}Processor", "image_seq_len": 4}, "<image>"

    return parts


def _llava(text: dict[str, Any], ids: dict[str, int]) -> Parts:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        text_config={"model_type": "llama"} | text,
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16} | _SMALL_CLIP,
        image_token_id=ids["<image>"],
        image_seq_length=16,
        pad_token_id=ids["<pad>"],
    )
    pictures = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56},
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    return LlavaForConditionalGeneration(config), pictures, processor, "<image>"


def _llama(text: dict[str, Any], ids: dict[str, int]) -> Parts:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**text)), {}, {}, ""


def _qwen(kind: str, text_more: dict[str, Any], vision: dict[str, Any]) -> Callable[..., Parts]:
    def parts(text: dict[str, Any], ids: dict[str, int]) -> Parts:
        import transformers

        patch = vision["patch_size"]
        config = getattr(transformers, f"{kind}Config")(
            text_config=text | text_more,
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 4,
                "out_hidden_size": text["hidden_size"],
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            }
            | vision,
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
        pictures = {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": patch,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "size": {"shortest_edge": 4 * patch * patch, "longest_edge": 16 * patch * patch},
        }
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        marker = "<|vision_start|><|image_pad|><|vision_end|>"
        return model, pictures, {"processor_class": f"{kind}Processor"}, marker

    return parts


_PARTS: dict[str, Callable[[dict[str, Any], dict[str, int]], Parts]] = {
    "idefics3": _idefics("Idefics3"),
    "smolvlm": _idefics("SmolVLM"),
    "llava": _llava,
    "llama": _llama,
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}},
        {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
    ),
    "qwen3_vl": _qwen(
        "Qwen3VL",
        {
            "head_dim": 16,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_section": [3, 3, 2],
                "mrope_interleaved": True,
                "rope_theta": 1e4,
            },
        },
        {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    ),
}


def noise_pictures(folder: Path, count: int) -> list[Path]:
    """So many pictures of noise, each of another size."""
    generator, files = np.random.default_rng(0), [folder / f"{n}.png" for n in range(count)]
    for n, file in enumerate(files):
        pixels = generator.integers(0, 255, (40 + 31 * n, 90 - 13 * n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return files
