"""Whether a generated text can be used: checks that need no dictionary, and so hold in every language.

Of an answer that was cut at the limit of new tokens the whole sentences can be kept; the other faults leave nothing.
"""

from __future__ import annotations

import re
import zlib

from mllmrec.reason.chat import Reply
from mllmrec.reason.refusals import opens_as_refusal

VERSION = "checks 1"
_LEAST_LETTERS = 3
_LOOP = re.compile(r"(.{1,160}?)\1{2,}\W{0,3}$", re.DOTALL)
_LOOP_LENGTH = 30  # characters that a repetition at the end must span
_LOOPED_FROM = 240  # bytes; shorter texts compress badly whatever they say
_LOOPED_RATIO = 0.22  # plain prose compresses to 0.4 to 0.6 of its size, a text of repetitions to less than 0.2
_SHINGLE = 24  # characters; by characters, since not every script parts its words
_COPIED = 0.5  # share of an answer's shingles that stand in the question
_THOUGHT = "</think>"
_SENTENCE_END = re.compile(
    r"[.!?\u3002\uff01\uff1f\u0964\u061f\u2026][\"'\u201d\u2019)\u300d]*(?=\s|$)|[\u3002\uff01\uff1f]"
)


def thought_through(text: str) -> str:
    """The answer of a model that thinks aloud first: what stands after its last thought."""
    return text.rpartition(_THOUGHT)[2].strip()


def fault(reply: Reply, question: str) -> str:
    """Why a reply cannot be used as it stands, one line; empty where it can.

    Args:
        reply: what came back, its thoughts removed.
        question: the text that was asked, against which copying is seen.
    """
    text = reply.text
    if reply.finish == "failed":
        return reply.reason or "the engine gave no reason"
    if sum(c.isalpha() for c in text) < _LEAST_LETTERS:
        return "empty answer"
    if opens_as_refusal(text):
        return "refusal"
    if loops(text):
        return "looping answer"
    if copies(text, question):
        return "copy of the question"
    return "cut at the limit of new tokens" if reply.finish == "length" else ""


def loops(text: str) -> bool:
    """Whether a text ends in repetitions of one unit, or says so little that it packs to a fifth of its size."""
    found = _LOOP.search(text[-600:])
    if found and len(found.group()) >= _LOOP_LENGTH:
        return True
    raw = text.encode("utf-8", "replace")
    return len(raw) >= _LOOPED_FROM and len(zlib.compress(raw, 9)) < _LOOPED_RATIO * len(raw)


def copies(text: str, question: str) -> bool:
    """Whether half of a text's character shingles stand in the question, letter case and spaces aside."""
    answer, asked = (" ".join(part.lower().split()) for part in (text, question))
    shingles = [answer[n : n + _SHINGLE] for n in range(len(answer) - _SHINGLE + 1)]
    return bool(shingles) and sum(shingle in asked for shingle in shingles) > _COPIED * len(shingles)


def salvage(reply: Reply) -> str:
    """What is left to use of an answer that was cut: its whole sentences, or all of it where it has none."""
    ends = [found.end() for found in _SENTENCE_END.finditer(reply.text)]
    return reply.text[: ends[-1]].strip() if ends else reply.text
