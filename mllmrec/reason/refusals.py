"""How models open a refusal; the one check of answers that has to know words.

It sees a refusal at once, so that the model is asked again. Refusals in other words or other languages show when a
stage is done, by `reason.dependence`.
"""

from __future__ import annotations

import re

# The first words of "I am sorry, I cannot ...", "As an AI ..." in the languages that current models answer in.
# An answer is judged by its opening alone: a description may well say later that something cannot be seen.
_OPENINGS = (
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
_REFUSAL = re.compile(r"\W*(?:" + "|".join(_OPENINGS) + r")", re.IGNORECASE)


def opens_as_refusal(text: str) -> bool:
    """Whether a text begins as a refusal does."""
    return _REFUSAL.match(text[:200].replace("\u2019", "'")) is not None
