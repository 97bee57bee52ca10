"""Write the prompt over a user's history: each item with its share of the tokens, the newest items first to stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.reason.engine import ChatRequest, HistoryItem, Item, Readout, StatesModel
from mllmrec.reason.history_facts import HistoryFacts
from mllmrec.reason.prompts import ESTIMATE, Template, element
from mllmrec.reason.token_budget import Measure, recency_shares, recency_weights

_MIN_ITEM_TOKENS = 40  # below it, an item's title and what its pictures show are both in shreds
_IN_ORDER, _UNORDERED = "oldest first", "in no particular order"
_WEIGHED = "; the weight of an item says how much it still counts"


def catalogue_fields(item: Item) -> list[tuple[str, str]]:
    """Return what the catalogue says of an item, as labelled fields."""
    return [
        ("title", item.title),
        ("brand", item.brand),
        ("category", " / ".join(item.categories)),
        ("description", item.description),
    ]


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """Limits on the part of a history that a prompt holds.

    Attributes:
        tokens: of all items together.
        item_tokens: tokens per item.
        half_life: newer items that halve an item's weight; 0: all count the same.
    """

    tokens: int
    item_tokens: int
    half_life: float


class HistoryPrompts:
    """The prompt over a history; generated profiles and hidden states share it.

    Args:
        items: [I] the catalogue.
        template: the wording.
        values: of the template's places beside the data.
        limits: how much of a history it holds.
        measure: of tokens.
        facts: of the catalogue, for a template whose layout is "facts".
    """

    def __init__(
        self,
        items: Sequence[Item],
        template: Template,
        values: Mapping[str, str],
        limits: HistoryLimits,
        measure: Measure = ESTIMATE,
        facts: HistoryFacts | None = None,
    ) -> None:
        self._items, self._template, self._values = items, template, values
        self._limits, self._measure, self._facts = limits, measure, facts

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """Return the prompt; histories are oldest first, and the newest items survive the budget."""
        limits = self._limits
        order = _UNORDERED if history and history[0].time is None else _IN_ORDER
        if self._facts is not None:
            line = self._facts.line([entry.item for entry in history], limits.tokens, limits.item_tokens)
            return self._template.request({**self._values, "items": line, "order": order})
        least = min(_MIN_ITEM_TOKENS, limits.item_tokens)
        shares = recency_shares(len(history), limits.half_life, limits.tokens, limits.item_tokens, least)
        newest = history[len(history) - len(shares) :]
        weights = recency_weights(len(newest), limits.half_life)
        blocks = [
            self._block(n, entry, share, weight)
            for n, (entry, share, weight) in enumerate(zip(newest, shares, weights, strict=True), start=1)
        ]
        weighed = _WEIGHED if limits.half_life else ""
        return self._template.request({**self._values, "items": "\n".join(blocks), "order": f"{order}{weighed}"})

    def _block(self, number: int, entry: HistoryItem, share: int, weight: float) -> str:
        item, measure = self._items[entry.item], self._measure
        fields = [*catalogue_fields(item), ("pictures", entry.description)]
        weighed = f' weight="{weight:.2f}"' if self._limits.half_life else ""
        return element("item", fields, share, f' number="{number}"{weighed}', measure)


class HiddenProfiler:
    """The states of a model over the prompts of histories, in the place of generated texts.

    Args:
        model: whose states are read.
        prompts: over histories.
        readout: layer and pooling.
    """

    def __init__(self, model: StatesModel, prompts: HistoryPrompts, readout: Readout) -> None:
        self.model, self.prompts, self.readout = model, prompts, readout

    @property
    def fingerprint(self) -> str:
        """Return model, layer and pooling; the wording shows in the prompts."""
        return states_fingerprint(self.model, self.readout)

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """Return the prompt over a history."""
        return self.prompts.request(history)

    def states(self, requests: Sequence[ChatRequest]) -> NDArray[np.float32]:
        """Return float32 [requests, width]; the row of a request that cannot be read is NaN."""
        states: NDArray[np.float32] = self.model.hidden_states(requests, (self.readout,))[0]
        return states


def states_fingerprint(model: StatesModel, readout: Readout) -> str:
    """Return all that shapes the states of a prompt: a version, the model, the layer and the pooling."""
    return f"hidden-states 2 {model.states_fingerprint} layer={readout.layer} pooling={readout.pooling}"
