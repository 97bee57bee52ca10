"""Answer requests without pictures by our own decoding, and count tokens as any decoding goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mllmrec.reason.answer_text import opens_thought
from mllmrec.reason.engine import NO_RESULTS, ChatRequest, Reply, Report
from mllmrec.reason.engines.transformers_model import Loaded, text_settings
from mllmrec.reason.engines.transformers_processor import begins, render, to_reply

if TYPE_CHECKING:
    from mllmrec.reason.engines.llama_network import LlamaNetwork

_PLAIN = ("default", None)
_BLIND = "this model reads no pictures; describe.model must be one that does"
_THOUGHT = "<think>"  # put before a reply whose prompt ends in an open thought


@dataclass(frozen=True, slots=True)
class Decoding:
    """The limits of an answer.

    Attributes:
        max_new_tokens: of an answer.
        ends: tokens that end an answer.
        repetition_penalty: divides the score of a token that stands in prompt or answer; 1: none.
        rows: requests at once, at most.
        tokens: positions of all rows together, at most.
        sentence_ends: tokens that end a sentence, counted for requests that name a number of them.
        line_ends: tokens that end the paragraph, and with it the answer, of such requests.
    """

    max_new_tokens: int
    ends: Collection[int]
    repetition_penalty: float
    rows: int
    tokens: int
    sentence_ends: Collection[int] = ()
    line_ends: Collection[int] = ()


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
        sentence, line = _ends(tokenizer)
        decoding = replace(decoding, sentence_ends=sentence, line_ends=line)
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


def allowed_tokens(tokenizer: Any, words: Sequence[str], ends: Collection[int]) -> list[int]:
    """Return the tokens of a few words, as they stand and in small letters, of commas and points, and the ends.

    Args:
        tokenizer: of the model.
        words: words that an answer may use; none: any, and nothing is returned.
        ends: tokens that end an answer.
    """
    if not words:
        return []
    forms = {form for word in words for form in (word, word.lower())}
    texts = [*forms, *(f" {form}" for form in forms), ",", "."]
    read = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return sorted({token for tokens in read for token in tokens}.union(ends))


def _ends(tokenizer: Any) -> tuple[frozenset[int], frozenset[int]]:
    """Return the tokens that end a sentence, in scripts that end one by a point, and those that end a line."""
    vocabulary = tokenizer.get_vocab()
    breaks = ("\n", "\u010a", "<0x0A>")  # as it is, byte-level, and by its number
    return (
        frozenset(number for token, number in vocabulary.items() if token.endswith((".", "!", "?"))),
        frozenset(number for token, number in vocabulary.items() if any(sign in token for sign in breaks)),
    )


def begun(reply: Reply, opening: str, *, thinking: bool) -> Reply:
    """Return a reply with what its prompt ended in: its first words, or the mark of an open thought.

    Args:
        reply: the new tokens' text, stripped.
        opening: the first words of the answer, which stand in the prompt.
        thinking: the prompt ends in an open thought.
    """
    space = " " if opening and reply.text[:1].isalnum() else ""
    return replace(reply, text=f"{_THOUGHT if thinking else ''}{opening}{space}{reply.text}")


def too_long(tokens: int, new: int, settings: dict[str, Any]) -> str:
    """Return why a prompt does not fit into a model, empty if it does.

    Args:
        tokens: of the prompt.
        new: tokens of an answer, at most.
        settings: the model's config.json.
    """
    limit = text_settings(settings).get("max_position_embeddings")
    if limit and tokens + new > limit:
        return f"the prompt has {tokens:,} tokens, and with {new} new ones the model reads {limit:,}"
    return ""


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
