"""Hold the limits of an answer, and count what prompts have in common; both decodings of the CPU read them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllmrec.reason.engines.transformers_model import text_settings


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
        digits: tokens of digits alone; a point between two of them ends no sentence.
    """

    max_new_tokens: int
    ends: Collection[int]
    repetition_penalty: float
    rows: int
    tokens: int
    sentence_ends: Collection[int] = ()
    line_ends: Collection[int] = ()
    digits: Collection[int] = ()

    def ends_sentence(self, tokens: Sequence[int]) -> bool:
        """Return whether the last token shows that a sentence is over.

        A point after a digit may be that of 1.75, so it is over once no digit follows.
        """
        before, point, last = (-1, -1, *tokens)[-3:]
        if last in self.sentence_ends:
            return point not in self.digits
        return point in self.sentence_ends and before in self.digits and last not in self.digits


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


def with_sentences(decoding: Decoding, tokenizer: Any) -> Decoding:
    """Return limits that know the tokens which end a sentence, in scripts that end one by a point, or a line."""
    breaks = ("\n", "\u010a", "<0x0A>")  # as it is, byte-level, and by its number
    named = tokenizer.get_vocab().items()
    return replace(
        decoding,
        sentence_ends=frozenset(number for token, number in named if token.endswith((".", "!", "?"))),
        line_ends=frozenset(number for token, number in named if any(sign in token for sign in breaks)),
        digits=frozenset(number for token, number in named if token.isdigit()),
    )


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


def shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share, at least one of each being left; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    least, most = min(prompts), max(prompts)  # in the order of words, these two differ first
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False)))
    return min(shared, min(map(len, prompts)) - 1)
