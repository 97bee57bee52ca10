"""Find the answer in a model's raw text: no thoughts, control tokens, code fences, or words to the reader.

Models and servers leave these in: a reasoning parser that is switched off, a chat template that the server does not
know, a model that greets before it answers. What is cut away never ends inside a word.
"""

from __future__ import annotations

import re

_TAGS = r"(?:antml:|seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
# <think>, [THINK] (Mistral), the marks of Kimi and Cohere, channels (gpt-oss, Gemma).
_OPEN = (
    rf"<{_TAGS}>|\[THINK(?:ING)?\]|\u25c1think\u25b7|<\|(?:begin_of_thought|START_THINKING)\|>"
    r"|<\|channel\|?>\s*(?:analysis|commentary|thought)\b"
)
_CLOSE = (
    rf"</{_TAGS}\s*>|\[/THINK(?:ING)?\]|\u25c1/think\u25b7|<\|(?:end_of_thought|END_THINKING)\|>"
    r"|<\|channel\|>\s*final\b[^<]{0,40}(?:<\|message\|>)?|<channel\|>"
)
_THOUGHT_MARKS = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_OPEN_AT_END = re.compile(rf"(?:{_OPEN})\s*\Z", re.IGNORECASE)
# Channels whose marks a tokenizer has dropped: "analysisThe user ... assistantfinalA red mug."
_BARE_CHANNEL = re.compile(r"\A\s*(?:analysis(?=[A-Z])|thought\n)")
_BARE_FINAL = "assistantfinal"

_ALOUD = re.compile(
    r"\W*(?:(?:(?:okay|ok|alright|hmm+|well|so|got it)\b[\s,.!:]*)+(?:so |now |first,? )?"
    r"(?:the user|i |we |let me|let's|let us)"
    r"|the user (?:wants me|is asking|asks|asked|wrote|provided|gave|has (?:asked|given|provided|shared|sent))"
    r"|the user (?:wants|needs|would like)\b.{0,80}\b(?:description|paragraph|notes?|pictures?|images?|summary|words)\b"
    r"|(?:first,? )?(?:i|we) (?:need|have|should|must)(?: to)? (?:describe|write|produce|answer|look|analy[sz]e|figure)"
    r"|let(?: me|'s| us) (?:think|look|see|start|analy[sz]e|break|examine|figure|try)"
    r"|(?:here(?:'s| is) (?:a|my|the) )?(?:thinking|thought) process\b)",
    re.IGNORECASE | re.DOTALL,
)

_MARK = r"<[|\uff5c][^<>\s]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_\w{1,20}>|<(?:eos|bos|pad)>|\[/?INST\]|<\|?turn\|?>"
_MARKS = re.compile(rf" ?(?:{_MARK})")
_END = re.compile(
    r"<[|\uff5c](?:im_end|eot_id|eom_id|end|return|endoftext|end_of_\w+|end\u2581of\u2581\w+|im_start|start|user)"
    r"[|\uff5c]>|</s>|<eos>|<end_of_\w+>|<start_of_turn>|\[/?INST\]|<turn\|>",
    re.IGNORECASE,
)
_HEAD = re.compile(rf"\A(?:\s*(?:{_MARK})\s*(?:assistant\b|model\b)?)+\s*", re.IGNORECASE)
_HALF_MARK = re.compile(r"\s*<[|\uff5c/]?\w*[|\uff5c]?\Z")
_WRAPPERS = re.compile(r"</?(?:answer|final_answer|output|response|description|note|profile|paragraph)>", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)

_META = (
    r"(?:description|note|paragraph|profile|summary|answer|caption|record|response|version|text|overview"
    r"|beschreibung|notiz|absatz|profil|zusammenfassung|antwort|paragraphe|fiche|r\u00e9ponse"
    r"|descripci\u00f3n|nota|p\u00e1rrafo|perfil|resumen|respuesta|descrizione|paragrafo|profilo|descri\u00e7\u00e3o"
    r"|beschrijving|\u043e\u043f\u0438\u0441\u0430\u043d\u0438\u0435|\u63cf\u8ff0|\u8bf4\u660e|\u8aac\u660e|\uc124\uba85)"
)
_SURE = (
    r"(?:(?:sure(?: thing)?|certainly|of course|absolutely|gladly|nat\u00fcrlich|gerne?|klar|bien s\u00fbr|claro"
    r"|por supuesto|certo|certamente|com certeza|zeker|\u043a\u043e\u043d\u0435\u0447\u043d\u043e"
    r"|\u5f53\u7136(?:\u53ef\u4ee5)?|\u597d\u7684)[!,.:;\uff01\uff0c\u3002]+"
    r"|(?:great|okay|ok|alright|got it|no problem|here you go)!+)"
)
_HERE = (
    r"(?:here(?:'s|\u2019s| is| are)|below is|the following is|hier (?:ist|sind|is)|voici"
    r"|aqu[i\u00ed] (?:est\u00e1|tiene)|ecco|\u0432\u043e\u0442|\u4ee5\u4e0b\u662f|\u4ee5\u4e0b\u306f)"
)
_COLON = r"[:\uff1a]"
_GREETING = re.compile(rf"\A\W*{_SURE}\s*(?=\S)", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(
    rf"\A\W*{_HERE}(?:[^.!?\n:\uff1a\u3002]{{0,120}}{_META}[^.!?\n:\uff1a\u3002]{{0,120}}{_COLON}"
    rf"|[^.!?\n:\uff1a\u3002]{{0,160}}{_COLON}\W*\n)\W*",
    re.IGNORECASE,
)
_LABEL = re.compile(rf"\A[\W_]*{_META}[*_]*\s*{_COLON}[*_\s]*", re.IGNORECASE)
_FAREWELL = re.compile(
    r"(?<=[.!?\n\"'*])\s*(?:let me know (?:if|what|whether)|(?:i )?hope (?:this|that) helps|feel free to (?:ask|let)"
    r"|would you like me to|do you want me to)[^\n]{0,200}\Z",
    re.IGNORECASE,
)
_ENOUGH = 3  # letters; less is no text
_LONGEST = 1 << 16  # characters of an answer that are looked at
_END_LENGTH = 300  # characters in which a farewell or half a mark may stand


def letters(text: str) -> int:
    """Count the letters of a text."""
    return sum(character.isalpha() for character in text)


def opens_thought(prompt: str) -> bool:
    """Return whether a rendered prompt ends in an open thought, as those of some thinking models do."""
    return _OPEN_AT_END.search(prompt[-80:]) is not None


def has_thought_marks(text: str) -> bool:
    """Return whether a text has a mark that opens or closes a thought."""
    return _THOUGHT_MARKS.search(text) is not None


def without_thoughts(text: str) -> str:
    """Return a text without the model's thoughts; of a thought that is not closed, nothing is left."""
    if bare := _BARE_CHANNEL.match(text):
        return text.rpartition(_BARE_FINAL)[2].strip() if _BARE_FINAL in text[bare.end() :] else ""
    pieces, start, thinking = list[str](), 0, False
    for mark in _THOUGHT_MARKS.finditer(text):
        if mark["open"] and not thinking:
            pieces.append(text[start : mark.start()])
            thinking = True
        elif mark["close"]:
            if not thinking:  # opened in the prompt, or twice: all before it was thought
                pieces.clear()
            start, thinking = mark.end(), False
    return "".join(pieces if thinking else [*pieces, text[start:]]).strip()


def thinks_aloud(text: str) -> bool:
    """Return whether a text without any mark of a thought begins as thoughts do."""
    return _ALOUD.match(text[:240].replace("\u2019", "'")) is not None


def without_markup(text: str) -> str:
    """Return an answer without control tokens, code fences, and words to the reader before and after it."""
    text = _unfenced(_without_marks(text[:_LONGEST].strip()))
    for pattern in (_GREETING, _ANNOUNCEMENT, _LABEL):
        text = _without(pattern, text)
    head, end = text[:-_END_LENGTH], text[-_END_LENGTH:]
    return f"{head}{_without(_FAREWELL, end)}".strip()


def _without_marks(text: str) -> str:
    text = _HEAD.sub("", text)
    end = _END.search(text)
    if end and letters(text[: end.start()]) >= _ENOUGH:
        text = text[: end.start()]
    if "<" in text or "[" in text:
        text = _WRAPPERS.sub("", _MARKS.sub("", text))
    return f"{text[:-_END_LENGTH]}{_HALF_MARK.sub('', text[-_END_LENGTH:])}".strip()


def _unfenced(text: str) -> str:
    """Return the inside of a code fence where most of a text stands in one; else the text without fences."""
    if "```" not in text:
        return text
    fence = _FENCE.search(text)
    if fence and 2 * letters(fence.group(1)) >= letters(text):
        text = fence.group(1)
    return re.sub(r"```\w*", "", text).strip()


def _without(pattern: re.Pattern[str], text: str) -> str:
    """Remove a match, unless nothing would be left."""
    rest = pattern.sub("", text, count=1)
    return rest if letters(rest) >= _ENOUGH else text
