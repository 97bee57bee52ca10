"""Answer requests without pictures by our own decoding, and count tokens as any decoding goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mllmrec.reason.answer_text import opens_thought
from mllmrec.reason.engine import NO_RESULTS, ChatRequest, Reply, Report
from mllmrec.reason.engines.decoding import Decoding, allowed_tokens, too_long, with_sentences
from mllmrec.reason.engines.transformers_model import Loaded
from mllmrec.reason.engines.transformers_processor import begins, render, to_reply

if TYPE_CHECKING:
    from mllmrec.reason.engines.llama_network import LlamaNetwork

_PLAIN = ("default", None)
_BLIND = "this model reads no pictures; describe.model must be one that does"
_THOUGHT = "<think>"  # put before a reply whose prompt ends in an open thought


def fits(settings: Mapping[str, Any]) -> bool:
    """Return whether a model of this config.json is a plain llama: no biases, and plain rotary positions."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    plain = rope.get("rope_type", rope.get("type")) in _PLAIN
    biased = settings.get("attention_bias") or settings.get("mlp_bias")
    return settings.get("model_type") == "llama" and settings.get("hidden_act") == "silu" and plain and not biased


def complete(
    loaded: Loaded,
    network: LlamaNetwork,
    requests: Sequence[ChatRequest],
    decoding: Decoding,
    report: Report[Reply],
) -> list[Reply]:
    """Return one reply per request, in order; a request with pictures, or too long for the model, fails by itself.

    Args:
        loaded: model and processor.
        network: our forward pass over the model's weights.
        requests: in any order.
        decoding: limits.
        report: called as tokens come, and with each reply at once.
    """
    from mllmrec.reason.engines.llama_decoding import answer

    replies: list[Reply] = [Reply("", "failed", _BLIND)] * len(requests)
    texts = {n: render(loaded.processor, request) for n, request in enumerate(requests) if not request.images}
    tokenizer, prompts = loaded.processor.tokenizer, dict[int, list[int]]()
    settings = loaded.model.config.to_dict()
    for n, text in texts.items():
        tokens = tokenizer(text, add_special_tokens=not begins(tokenizer, text), verbose=False)["input_ids"]
        why = too_long(len(tokens), decoding.max_new_tokens, settings)
        if why:
            replies[n] = Reply("", "failed", why)
        else:
            prompts[n] = list(tokens)
    failed = len(requests) - len(prompts)
    if any(requests[n].sentences for n in prompts):
        decoding = with_sentences(decoding, tokenizer)
    numbers = list(prompts)

    def finished(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, list[int]] = NO_RESULTS) -> None:
        new = {numbers[place]: answered for place, answered in results.items()}
        for n, answered in new.items():
            reply = to_reply(tokenizer, answered, decoding.ends)
            if len(answered) < decoding.max_new_tokens:
                reply = replace(reply, finish="stop")  # by its end, or after its last sentence
            replies[n] = begun(reply, requests[n].opening, thinking=opens_thought(texts[n]))
        report(failed + done, tokens, most, {n: replies[n] for n in new})

    sentences = [requests[n].sentences for n in prompts]
    allowed = [allowed_tokens(tokenizer, requests[n].words, decoding.ends) for n in prompts]
    answer(network, list(prompts.values()), decoding, finished, sentences=sentences, allowed=allowed)
    return replies


def begun(reply: Reply, opening: str, *, thinking: bool) -> Reply:
    """Return a reply with what its prompt ended in: its first words, or the mark of an open thought.

    Args:
        reply: the new tokens' text, stripped.
        opening: the first words of the answer, which stand in the prompt.
        thinking: the prompt ends in an open thought.
    """
    space = " " if opening and reply.text[:1].isalnum() else ""
    return replace(reply, text=f"{_THOUGHT if thinking else ''}{opening}{space}{reply.text}")


class TokenCounter:
    """The count of new tokens of a call whose batches the library decodes.

    Args:
        report: called with requests and tokens done, and with replies.
        most: new tokens that the call may come to.
    """

    def __init__(self, report: Report[Reply], most: int) -> None:
        self._report, self._most, self._done, self._tokens = report, most, 0, 0

    def finished(self, done: int, results: Mapping[int, Reply]) -> None:
        """Report how many requests are done, and the replies of the last batch."""
        self._done = done
        self._report(done, self._tokens, self._most, results)

    def each_step(self, tokens: Any, scores: Any, **_: Any) -> Any:
        """Report one more token of each row, and stop none: a criterion of the library.

        Args:
            tokens: int64 [B, T], prompts and answers so far.
            scores: of the last tokens; not looked at.
        """
        self._tokens += len(tokens)
        self._report(self._done, self._tokens, self._most)
        return tokens.new_zeros(len(tokens), dtype=bool)
