"""Check generated answers one by one, as they come.

An answer must be there, be no refusal, not loop and not copy its prompt. Only refusals need words; the
other checks hold in every language.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from mllmrec.reason.answer_text import letters, thinks_aloud, without_markup, without_thoughts
from mllmrec.reason.engine import Reply

VERSION = "checks 6"
CUT = "cut at the limit of new tokens"
LIST = "a list instead of sentences"
REPEATS = "repeats itself"
KEPT = (CUT, LIST, REPEATS)
"""Faults of answers whose text is kept where no attempt brings a better one."""
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
# The point of a number that begins a line ends no sentence.
_SENTENCE_END = re.compile(
    r"(?<!^\d)(?<!^\d\d)[.!?\u3002\uff01\uff1f\u0964\u061f\u2026][\"'\u201d\u2019)\u300d]*(?=\s|$)|[\u3002\uff01\uff1f]",
    re.MULTILINE,
)
_LIST_LINE = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,3}[.):])\s+\S", re.MULTILINE)
_LISTED = 3  # lines of a list from which on an answer is one
_DIGITS = re.compile(r"\d+")
_ITSELF = re.compile(
    r"\b(?:as|i am|i'm) an? (?:ai|artificial intelligence|(?:large )?language model|virtual assistant)\b", re.IGNORECASE
)
_FEW_FROM, _FEW = 12, 0.45  # words of an answer, and the share of different ones below which it says little
_RUN, _AGAIN = 3, 0.15  # words of a run, and the share of runs that came before
_TWICE = (2, 3, 4)  # words that may come again at once
_JOINT = 3  # letters of a word that joins others: and, or, und
_FOREIGN = 0.5  # share of an answer's letters in a script that hardly occurs in the prompt
_HARDLY_ANY = 0.02
# The first words of "I am sorry, I cannot ...", "As an AI ..." in the languages that current models answer in.
# An answer is judged only by its opening: a description may well say later that something cannot be seen.
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

_WORD = re.compile(r"[^\W\d_]{2,}")


def check_reply(reply: Reply, prompt: str, sentences: int = 0) -> tuple[str, str]:
    """Return the answer in a reply, and why it cannot be used as it stands; the reason is empty if it can.

    Args:
        reply: as the engine gave it.
        prompt: the request's text; copies of it are no answers.
        sentences: that are kept; an answer that was cut after them is whole. 0: all.
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
    if fault := _unusable(text, prompt):
        return "", fault
    if sentences and is_foreign(text, prompt):  # only such prompts say in which words an answer begins
        return "", "another script than the prompt"
    whole = first_sentences(text, sentences)
    text, cut = (salvage(text), CUT) if reply.finish == "length" and not whole else (whole or text, "")
    once = without_repeated_sentences(text)
    few = repeats(text) or says_again(once, note=sentences > 0) or 2 * letters(once) < letters(text)
    return once, (LIST if is_list(once) else REPEATS if few else cut)


def _unusable(text: str, prompt: str) -> str:
    """Return why nothing of an answer can be used, empty if some can."""
    if is_refusal(text):
        return "refusal"
    if _ITSELF.search(text):
        return "the model speaks of itself"
    if loops(text) or loops(_DIGITS.sub("0", text)):  # a numbered list without end differs in its numbers
        return "looping answer"
    return "copy of the prompt" if copies(text, prompt) else ""


def without_repeated_sentences(text: str) -> str:
    """Return a text without the sentences that it said before, letter case and spaces aside."""
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(text))]
    sentences = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    seen: set[str] = set()
    kept = []
    for sentence in sentences:
        plain = " ".join(_WORD.findall(sentence.lower()))
        if not plain or plain not in seen:
            kept.append(sentence)
        seen.add(plain)
    return text if len(kept) == len(sentences) else "".join(kept).strip()


def is_list(text: str) -> bool:
    """Return whether a text is a list: three lines or more that begin as one, and half of all lines."""
    lines = len(_LIST_LINE.findall(text))
    return lines >= _LISTED and 2 * lines >= sum(1 for line in text.splitlines() if line.strip())


def repeats(text: str) -> bool:
    """Return whether a text of a dozen words or more has few different ones."""
    words = _WORD.findall(text.lower())
    return len(words) >= _FEW_FROM and len(set(words)) < _FEW * len(words)


def says_again(text: str, *, note: bool = False) -> bool:
    """Return whether a text of a dozen words or more goes through the same words again.

    Args:
        text: of an answer.
        note: three words that come again are too many; they may in a longer text, but not at once or in many places.
    """
    words = _WORD.findall(text.lower())
    if len(words) < _FEW_FROM:
        return False
    runs = [tuple(words[n : n + _RUN]) for n in range(len(words) - _RUN + 1)]
    again = len(runs) - len(set(runs))
    return again >= (1 if note else _AGAIN * len(runs)) or _says_twice(words)


def _says_twice(words: Sequence[str]) -> bool:
    """Return whether a few words come again at once, or after a short one: "a family quilt and a family quilt"."""
    for start in range(len(words)):
        for size in _TWICE:
            run, after = words[start : start + size], start + size
            joint = after < len(words) and len(words[after]) <= _JOINT
            if len(run) == size and run in (
                words[after : after + size],
                words[after + 1 : after + 1 + size][: size * joint],
            ):
                return True
    return False


def is_foreign(text: str, prompt: str) -> bool:
    """Return whether most letters of an answer are of a script that its prompt has hardly any of.

    A language in the prompt's own script is not seen.
    """
    scripts, known = _scripts(text), _scripts(prompt)
    total, common = sum(scripts.values()), sum(known.values())
    return any(
        count > _FOREIGN * total and known[script] <= _HARDLY_ANY * common for script, count in scripts.items()
    ) and bool(common)


def _scripts(text: str) -> Counter[str]:
    """Count the letters of each script, as the first word of a letter's name tells it: LATIN, CYRILLIC, CJK."""
    letters_of = Counter(character for character in text if character.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters_of.items():
        scripts[unicodedata.name(letter, "OTHER").split(" ")[0].split("-")[0]] += count
    return scripts


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


def first_sentences(text: str, count: int) -> str:
    """Return the first sentences of a text; nothing if it has fewer, or none are counted."""
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    return text[: ends[count - 1]].strip() if 0 < count <= len(ends) else ""


def salvage(text: str) -> str:
    """Return the whole sentences of a text that was cut; if there is none, its whole words."""
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]].strip()
    head, space, tail = text.rpartition(" ")
    return f"{head.rstrip()}\u2026" if space and len(tail) < _LONGEST_WORD and letters(head) >= _MIN_LETTERS else text


def status_counts(counts: Mapping[str, int]) -> str:
    """Return the answers that are no plain success, for a stage's one line; empty if all are.

    Args:
        counts: answers by status.
    """
    parts = [
        f"{counts[status]:,} of them {label}"
        for status, label in (("flagged", "flagged"), ("suspect", "suspect"))
        if counts.get(status)
    ]
    return f" ({', '.join(parts)})" if parts else ""
