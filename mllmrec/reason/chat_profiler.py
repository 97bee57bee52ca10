"""The Profiler over a chat model: a history's items, each with its share of tokens, and a template -> P_u (method 2.3).

Sees the history it is handed and nothing else of the user; of the catalogue it reads the history's items only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.reason.asking import Asker
from mllmrec.reason.chat import ChatRequest
from mllmrec.reason.chat_describer import fields_of
from mllmrec.reason.engine import Answer, HistoryItem, Item
from mllmrec.reason.prompts import Template
from mllmrec.reason.quote import element
from mllmrec.reason.shares import recency_shares, recency_weights

_LEAST_TOKENS = 40  # of an item; below it, its title and what its pictures show are both in shreds
_IN_ORDER, _UNORDERED = "oldest first", "in no particular order"
_WEIGHED = "; the weight of an item says how much it still counts"


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much of a history is told.

    Attributes:
        tokens: estimated tokens of all items together.
        item_tokens: estimated tokens an item.
        half_life: so many newer items halve an item's weight; 0: all count the same.
    """

    tokens: int
    item_tokens: int
    half_life: float


class HistoryPrompts:
    """The question that is asked of a history; generated profiles and hidden states share it."""

    def __init__(
        self, items: Sequence[Item], template: Template, values: Mapping[str, str], limits: HistoryLimits
    ) -> None:
        self._items, self._template, self._values, self._limits = items, template, values, limits

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """The question; histories are oldest first, and the newest items survive the budget."""
        limits = self._limits
        shares = recency_shares(len(history), limits.half_life, limits.tokens, limits.item_tokens, _LEAST_TOKENS)
        told = history[len(history) - len(shares) :]
        weights = recency_weights(len(told), limits.half_life)
        blocks = [
            self._block(n, entry, share, weight)
            for n, (entry, share, weight) in enumerate(zip(told, shares, weights, strict=True), start=1)
        ]
        order = _UNORDERED if told and told[0].time is None else _IN_ORDER
        weighed = _WEIGHED if limits.half_life else ""
        return self._template.request({**self._values, "items": "\n".join(blocks), "order": f"{order}{weighed}"})

    def _block(self, number: int, entry: HistoryItem, share: int, weight: float) -> str:
        fields = [*fields_of(self._items[entry.item]), ("pictures", entry.description)]
        weighed = f' weight="{weight:.2f}"' if self._limits.half_life else ""
        return element("item", fields, share, f' number="{number}"{weighed}')


class ChatProfiler:
    """Asks a chat model for a user's preferences."""

    def __init__(self, asker: Asker, prompts: HistoryPrompts) -> None:
        self._asker, self._prompts = asker, prompts

    @property
    def fingerprint(self) -> str:
        """Model, wording and checks; the limits show in the question."""
        return f"chat-profile 1 {self._asker.fingerprint}"

    @property
    def batch_size(self) -> int:
        """What the model takes at once."""
        return self._asker.model.batch_size

    def material(self, history: Sequence[HistoryItem]) -> dict[str, Any]:
        """The whole question: users whose histories read the same get one answer."""
        request = self.request(history)
        return {"system": request.system, "text": request.text}

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """The question of a history."""
        return self._prompts.request(history)

    def profile(self, histories: Sequence[Sequence[HistoryItem]]) -> list[Answer]:
        """One answer a history."""
        return self._asker.ask([self.request(history) for history in histories])
