"""Check generated answers: one by one as they come, and all answers of a stage together.

One by one, an answer must be there, be no refusal, not loop and not copy its prompt. Only refusals need words; the
other checks hold in every language.

Together, an answer is suspect where it does not seem to depend on its request. That shows refusals and set phrases
in any language: others got the same text, or it is made of what many others say, or it is short and shares no telling
word with its own item where nearly all others do. A suspect text is kept. A single refusal among prompts without
text cannot be seen in this way.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mllmrec.reason.answer_text import letters, thinks_aloud, without_markup, without_thoughts
from mllmrec.reason.engine import Answer, Reply

VERSION = "checks 1"
CUT = "cut at the limit of new tokens"
THINKING = (
    "no answer after the model's thoughts; it thinks before it answers, so set max_new_tokens to 2048 or more, or "
    "turn its thinking off"
)
CUT_THINKING = (
    "cut at the limit of new tokens while the model was still thinking; it thinks before it answers, so set "
    "max_new_tokens to 2048 or more, or turn its thinking off"
)
_MIN_LETTERS = 3
_LOOP = re.compile(r"(.{1,160}?)\1{2,}\W{0,3}$", re.DOTALL)
_LOOP_LENGTH = 30  # characters that a repetition at the end must span
_LOOPED_FROM = 240  # bytes; shorter texts compress badly whatever they say
_LOOPED_RATIO = 0.22  # plain prose compresses to 0.4 to 0.6 of its size, a text of repetitions to less than 0.2
_SHINGLE = 24  # characters; by characters, since not every script parts its words
_COPIED = 0.5  # share of an answer's shingles that stand in the prompt
_LONGEST_WORD = 30  # characters; a longer run without a space is a script that does not part its words
_SENTENCE_END = re.compile(
    r"[.!?\u3002\uff01\uff1f\u0964\u061f\u2026][\"'\u201d\u2019)\u300d]*(?=\s|$)|[\u3002\uff01\uff1f]"
)
# The first words of "I am sorry, I cannot ...", "As an AI ..." in the languages that current models answer in.
# An answer is judged by its opening alone: a description may well say later that something cannot be seen.
_REFUSALS = (
    r"(i'?m|i am) (sorry|unable|not able|afraid)",
    r"(sorry|apologies|unfortunately)\b.{0,40}\b(can'?t|cannot|unable|not able)",
    r"i (can'?t|cannot|won'?t|will not|must decline|don'?t see (any|an) image)",
    r"as an? (ai|artificial|language model)",
    r"(es tut mir leid|tut mir leid|leider kann ich|ich kann (das |dieses |dabei )?nicht|als (ki|sprachmodell))",
    r"(je suis desole|je suis désolé|désolé|je ne peux pas|en tant qu)",
    r"(lo siento|no puedo|como (modelo|ia|asistente))",
    r"(desculpe|sinto muito|não posso|nao posso)",
    r"(mi dispiace|non posso|spiacente)",
    r"(het spijt me|sorry, ik kan)",
    r"(извините|простите|к сожалению, я не|я не могу)",
    r"(抱歉|对不起|對不起|很抱歉|我无法|我無法|我不能|作为一个?(ai|人工智能|语言模型))",
    r"(申し訳|すみません|ごめんなさい)",
    r"(죄송|미안)",
    r"(عذرا|آسف|لا أستطيع|لا يمكنني)",
)
_REFUSAL = re.compile(r"\W*(?:" + "|".join(_REFUSALS) + r")", re.IGNORECASE)

_MIN_REQUESTS = 20  # different requests before a stage's answers can be compared
_SAME = 3  # requests with one and the same answer
_WINDOW = 20  # letters; about four words, or a sentence of Chinese
_MANY, _SET_PHRASE = 0.02, 0.8  # a window is common in this share of answers; of a set phrase this share of windows is
_COMMON = 0.1  # a word of more items' texts tells none of them apart
_USUAL = 0.9  # share of answers with a telling word of their item from which on one without is odd
_SHORT = 0.5  # of the median length
_UNSPACED = 0x2E80  # from here on, scripts that mostly do not part their words
_WORD = re.compile(r"[^\W\d_]{2,}")
_MIN_WORD = 4  # letters of a word in a script that parts its words


def check_reply(reply: Reply, prompt: str) -> tuple[str, str]:
    """Return the answer in a reply, and why it cannot be used as it stands; the reason is empty where it can.

    Args:
        reply: as the engine gave it.
        prompt: the request's text; copies of it are no answers.
    """
    if reply.finish in ("failed", "refused"):
        return "", reply.reason or "the engine gave no reason"
    thoughtless = without_thoughts(reply.text)
    text = without_markup(thoughtless)
    thinking = CUT_THINKING if reply.finish == "length" else THINKING
    if letters(text) < _MIN_LETTERS:
        only_thoughts = reply.thinking or letters(reply.text) - letters(thoughtless) >= _MIN_LETTERS
        return "", thinking if only_thoughts else "empty answer"
    if thinks_aloud(text):
        return "", thinking
    if is_refusal(text):
        return "", "refusal"
    if loops(text):
        return "", "looping answer"
    if copies(text, prompt):
        return "", "copy of the prompt"
    return (salvage(text), CUT) if reply.finish == "length" else (text, "")


def is_refusal(text: str) -> bool:
    """Return whether a text begins as a refusal does."""
    return _REFUSAL.match(text[:200].replace("\u2019", "'")) is not None


def loops(text: str) -> bool:
    """Return whether a text ends in repetitions of one unit, or packs to a fifth of its size."""
    end = _LOOP.search(text[-600:])
    if end and len(end.group()) >= _LOOP_LENGTH:
        return True
    raw = text.encode("utf-8", "replace")
    return len(raw) >= _LOOPED_FROM and len(zlib.compress(raw, 9)) < _LOOPED_RATIO * len(raw)


def copies(text: str, prompt: str) -> bool:
    """Return whether half of a text's character shingles stand in the prompt, letter case and spaces aside."""
    answer, source = (" ".join(part.lower().split()) for part in (text, prompt))
    shingles = [answer[n : n + _SHINGLE] for n in range(len(answer) - _SHINGLE + 1)]
    return bool(shingles) and sum(shingle in source for shingle in shingles) > _COPIED * len(shingles)


def salvage(text: str) -> str:
    """Return the whole sentences of a text that was cut; where there is none, its whole words."""
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]].strip()
    head, space, tail = text.rpartition(" ")
    return f"{head.rstrip()}\u2026" if space and len(tail) < _LONGEST_WORD and letters(head) >= _MIN_LETTERS else text


def mark_suspects(keys: Sequence[str], material: Sequence[str], answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers in order; those that do not seem to depend on their request become "suspect".

    Args:
        keys: of the requests; equal requests have one answer, and count once.
        material: the words of each request: an item's own text, or that of a history's items.
        answers: one a request; only those of status "ok" are judged.
    """
    rows = {key: n for n, key in enumerate(keys) if answers[n].status == "ok"}
    order = list(rows.values())
    reasons = suspicions([material[n] for n in order], [answers[n].text for n in order])
    by_key = dict(zip(rows, reasons, strict=True))
    return [
        replace(answer, status="suspect", reason=by_key[key]) if by_key.get(key) and answer.status == "ok" else answer
        for key, answer in zip(keys, answers, strict=True)
    ]


def suspicions(material: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return one reason per suspect answer, and an empty string for an answer that is specific to its request."""
    if len(texts) < _MIN_REQUESTS:
        return [""] * len(texts)
    plain = [" ".join(_WORD.findall(text.lower())) for text in texts]
    same = Counter(plain)
    phrases = _share_of_common_windows(plain)
    unrelated = _short_and_unrelated(material, texts, [len(text) for text in plain])
    reasons = []
    for text, phrase, alien in zip(plain, phrases, unrelated, strict=True):
        if same[text] >= _SAME:
            reasons.append(f"the same answer as to {same[text] - 1:,} other requests")
        elif phrase >= _SET_PHRASE:
            reasons.append("made of what many other answers say too")
        else:
            reasons.append("short, and without a word of its request" if alien else "")
    return reasons


def _share_of_common_windows(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return [N] the share of each answer's windows of letters that stand in many others, float64."""
    windows = [_hashes(text) for text in texts]
    _, inverse, counts = np.unique(np.concatenate(windows), return_inverse=True, return_counts=True)
    common = counts[inverse] >= max(_SAME, math.ceil(_MANY * len(texts)))
    starts = np.cumsum([0, *map(len, windows[:-1])])
    shares: NDArray[np.float64] = np.add.reduceat(common, starts) / np.array([len(own) for own in windows])
    return shares


def _hashes(text: str) -> NDArray[np.uint64]:
    """Hash the different windows of a text, at least one (a polynomial modulo 2^64)."""
    codes = np.frombuffer(text.ljust(_WINDOW).encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    powers = np.array([pow(1_000_003, n, 1 << 64) for n in range(_WINDOW)], dtype=np.uint64)
    return np.unique((np.lib.stride_tricks.sliding_window_view(codes, _WINDOW) * powers).sum(axis=1, dtype=np.uint64))


def _short_and_unrelated(material: Sequence[str], texts: Sequence[str], lengths: Sequence[int]) -> list[bool]:
    """Mark the short answers without a telling word of their request, where nearly all others have one."""
    own = [_words(text) for text in material]
    frequency = Counter(word for words in own for word in words)
    most = _COMMON * len(own)
    related = [
        any(frequency[word] <= most for word in words & _words(text)) for words, text in zip(own, texts, strict=True)
    ]
    if sum(related) < _USUAL * len(related):
        return [False] * len(related)
    short = _SHORT * float(np.median(lengths))
    return [not kin and bool(words) and n < short for kin, words, n in zip(related, own, lengths, strict=True)]


def _words(text: str) -> set[str]:
    """Return the longer words; of scripts that do not part them, pairs of letters."""
    words = set()
    for word in _WORD.findall(text.lower()):
        if ord(word[0]) >= _UNSPACED:
            words |= {word[n : n + 2] for n in range(len(word) - 1)}
        elif len(word) >= _MIN_WORD:
            words.add(word)
    return words


def status_counts(counts: Mapping[str, int]) -> str:
    """Return the answers that are no plain success, for a stage's one line; empty where all are.

    Args:
        counts: answers by status.
    """
    parts = [
        f"{counts[status]:,} of them {label}"
        for status, label in (("flagged", "cut"), ("suspect", "suspect"))
        if counts.get(status)
    ]
    return f" ({', '.join(parts)})" if parts else ""
