"""A tiny llama as a GGUF file, written by the format's description alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def words() -> list[str]:
    """Three markers, the 256 signs that byte-level tokenizers write for bytes, and one pair."""
    from tokenizers import pre_tokenizers

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]


def tensors(vocabulary: int) -> dict[str, NDArray[np.float32]]:
    """Random weights, rows first."""
    rng = np.random.default_rng(5)
    shapes = {"token_embd": (vocabulary, WIDTH)}
    for n in range(LAYERS):
        kv = WIDTH // HEADS * KV_HEADS
        shapes |= {
            f"blk.{n}.attn_q": (WIDTH, WIDTH),
            f"blk.{n}.attn_k": (kv, WIDTH),
            f"blk.{n}.attn_v": (kv, WIDTH),
            f"blk.{n}.attn_output": (WIDTH, WIDTH),
            f"blk.{n}.ffn_gate": (INNER, WIDTH),
            f"blk.{n}.ffn_up": (INNER, WIDTH),
            f"blk.{n}.ffn_down": (WIDTH, INNER),
        }
    made = {f"{name}.weight": 0.3 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    norms = ["output_norm", *(f"blk.{n}.{part}" for n in range(LAYERS) for part in ("attn_norm", "ffn_norm"))]
    return made | {f"{name}.weight": np.ones(WIDTH, np.float32) for name in norms}


def fields(vocabulary: list[str]) -> dict[str, Any]:
    """The metadata of a llama with a byte-level tokenizer."""
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": LAYERS,
        "llama.context_length": 512,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(vocabulary),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3, 3, 3, *([1] * (len(vocabulary) - 3))],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(file: Path, own: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Write the file; `own` replaces metadata, a change of None removes it."""
    vocabulary = words()
    entries = {**fields(vocabulary), **(own or {})}
    placed = tensors(len(vocabulary)) | changes
    head = b"GGUF" + struct.pack("<IQQ", 3, len(placed), len(entries))
    head += b"".join(_text(key) + _value(value) for key, value in entries.items())
    offset, data = 0, b""
    for name, array in placed.items():
        shape = array.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        data += array.tobytes() + b"\0" * (-array.nbytes % 32)
        offset = len(data)
    file.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return file


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
