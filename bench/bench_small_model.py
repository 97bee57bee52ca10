"""A small text model on the CPU: `python -m bench.bench_small_model [MODEL] [--requests N] [--new N] [--openvino]`.

The same prompts go through the library's float32 loop one by one, and through our own pass in float32 and in the
processor's narrow format. With --openvino they go through OpenVINO too, its weights in float32 and in int8; that takes
the environment of `make test-openvino`, and a model's folder. The table has seconds a request, new tokens a second, and
how many times faster than the loop that is. It counts texts that begin the loop's, and has the share of the bound by
memory: a step cannot be faster than one reading of the weights and of the keys and values.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from mllmrec.engine_config import TransformersConfig
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.prompts import load_template

WORDS = ("red", "mug", "ceramic", "blue", "striped", "cotton", "shirt", "leather", "boot", "wooden", "lamp", "garden")
READ_BYTES = 1 << 28  # of the array whose sum measures the memory
STEP_ROWS, STEP_POSITION = 20, 360
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("loop", {"dtype": "float32"}),
    ("own", {"dtype": "float32"}),
    ("own", {}),
    ("openvino", {"backend": "openvino"}),
    ("openvino", {"backend": "openvino", "quantize": "int8"}),
)


def requests(count: int) -> list[ChatRequest]:
    """Prompts of the template for small models, over drawn facts."""
    template = load_template("plain", "profile")
    prompts = []
    for n in range(count):
        words = [WORDS[(7 * n + 5 * k) % len(WORDS)] for k in range(9)]
        line = f"Kinds: {', '.join(words[:3])}. Looks: {', '.join(words[3:6])}. Bought: {', '.join(words[6:])} {n}."
        prompts.append(template.request({"items": line, "order": "", "category": "", "words": ""}))
    return prompts


def memory_speed() -> float:
    """Bytes a second that a sum reads; the best of five."""
    values = torch.ones(READ_BYTES // 4)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        values.sum()
        best = max(best, READ_BYTES / (time.perf_counter() - began))
    return best


def timed(chat: TransformersChat, prompts: list[ChatRequest], *, alone: bool) -> tuple[list[Reply], int, float, float]:
    """Replies, their new tokens, seconds of the clock, and seconds of the processor."""
    counts: list[int] = []
    began, busy = time.perf_counter(), time.process_time()
    replies = []
    for call in [[request] for request in prompts] if alone else [prompts]:
        latest = [0]
        replies += chat.complete(
            call, lambda done, tokens=0, most=0, results=None, latest=latest: latest.append(tokens)
        )
        counts.append(max(latest))
    return replies, sum(counts), time.perf_counter() - began, time.process_time() - busy


def step_share(model: TransformersModel, speed: float) -> float:
    """The share of the memory bound that a step of many rows comes to."""
    network = model.network
    assert network is not None
    cache = network.allocate(STEP_ROWS, STEP_POSITION + 8)
    tokens, places = torch.arange(STEP_ROWS) + 100, torch.full((STEP_ROWS,), STEP_POSITION)
    with torch.inference_mode():
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            network.step(tokens, cache, places)
            seconds.append(time.perf_counter() - began)
    states = (cache.keys.numel() + cache.values.numel()) * cache.keys.element_size()
    return (network.weight_bytes + states) / speed / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--loop", type=int, default=8, help="requests of the loop, which is slow")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--openvino", action="store_true", help="OpenVINO too")
    options = parser.parse_args()
    questions, speed = requests(options.requests), memory_speed()
    print(f"memory: {speed / 1e9:.1f} GB/s; threads: {torch.get_num_threads()}")
    loop = 0.0
    exact: list[Reply] = []
    for name, settings in RUNS:
        if name == "openvino" and not options.openvino:
            continue
        model = TransformersModel(options.model, TransformersConfig(device="cpu", **settings))
        own = name == "own"
        if not own:
            model.__dict__["network"] = None
        _ = model.loaded, model.network
        chat = TransformersChat(model, max_new_tokens=options.new, seed=0)
        chat.complete(questions[:1])  # warms up
        some = questions[: options.loop] if name == "loop" else questions
        replies, tokens, seconds, busy = timed(chat, some, alone=name == "loop")
        each = seconds / len(some)
        loop, exact = loop or each, exact or replies
        same = sum(other.text.startswith(reply.text) for reply, other in zip(replies, exact, strict=False))
        share = f"   {step_share(model, speed):5.0%} of the memory bound a step" if own else ""
        weights = model.dtype if model.config.quantize == "none" else model.config.quantize
        print(
            f"{name:8} {weights:9} {each:7.3f} s a request ({busy / len(some):.3f} s of processor)   "
            f"{tokens / seconds:7.1f} tokens/s   {loop / each:5.2f} times the loop   "
            f"{same} of {min(len(replies), len(exact))} texts equal{share}",
            flush=True,
        )


if __name__ == "__main__":
    main()
