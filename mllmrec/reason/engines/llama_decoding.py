"""Answer prompts by a `LlamaNetwork`: the shared prefix once, then as many requests at once as fit.

A request that ends makes room for the next at once, so the products stay large to the end. Only greedy decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mllmrec.reason.engine import Report, no_report
from mllmrec.reason.engines.decoding import Decoding, shared_prefix
from mllmrec.reason.engines.llama_network import KeyValues, LlamaNetwork

_SHORTEST_PREFIX = 8  # tokens; copying fewer is not worth a pass of their own


@dataclass(slots=True)
class _Row:
    """A request that is being answered.

    Attributes:
        number: of the request.
        prompt: how many of the tokens are its prompt.
        tokens: prompt and answer so far.
        sentences: still to come; 0 or less: until the answer ends.
        done: the last sentence of the request is there.
        seen: int64, the different tokens so far, where repetitions are penalized.
    """

    number: int
    prompt: int
    tokens: list[int]
    sentences: int
    done: bool = False
    seen: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


def answer(
    network: LlamaNetwork,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    report: Report[list[int]] = no_report,
    sentences: Sequence[int] = (),
    allowed: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Return the new tokens of each prompt, its end included where it came to one.

    Args:
        network: the model.
        prompts: token ids of each; none is empty.
        decoding: limits.
        report: called with requests and tokens done, and with the new tokens of each answer that ends.
        sentences: after which each answer ends, 0 or less: by itself; empty: all by themselves.
        allowed: tokens that each answer may use; None or empty: any.
    """
    if not prompts:
        return []
    with torch.inference_mode():
        answering = _Answering(network, prompts, decoding, report, sentences or [0] * len(prompts))
        answering.allow(allowed)
        return answering.run()


class _Answering:
    """The rows of one call."""

    def __init__(
        self,
        network: LlamaNetwork,
        prompts: Sequence[list[int]],
        decoding: Decoding,
        report: Report[list[int]],
        sentences: Sequence[int],
    ) -> None:
        self._network, self._prompts, self._decoding, self._report = network, prompts, decoding, report
        longest = max(map(len, prompts)) + decoding.max_new_tokens
        self._sentences = sentences
        self._most = max(1, min(decoding.rows, len(prompts), decoding.tokens // longest))
        self._cache = network.allocate(self._most, longest)
        self._shared = shared_prefix(prompts)
        self._prefix = self._read_prefix()
        self._answers: dict[int, list[int]] = {}
        self._allowed: dict[int, Tensor] = {}
        self._rows: list[_Row] = []
        self._count = 0

    def allow(self, tokens: Sequence[Sequence[int]]) -> None:
        """Keep each answer to its tokens; none: to any."""
        self._allowed = {n: torch.tensor(own) for n, own in enumerate(tokens) if own}

    def run(self) -> list[list[int]]:
        """Answer all prompts, the longest first: if memory runs out, then at once."""
        order = sorted(range(len(self._prompts)), key=lambda n: len(self._prompts[n]), reverse=True)
        waiting = iter(order)
        while self._fill(waiting) or self._rows:
            self._step()
            self._leave()
        return [self._answers[n] for n in range(len(self._prompts))]

    def _read_prefix(self) -> KeyValues | None:
        if self._shared < _SHORTEST_PREFIX:
            self._shared = 0
            return None
        prefix = self._network.allocate(1, self._shared)
        self._network.read(torch.tensor(self._prompts[0][: self._shared]), prefix, 0, 0)
        return prefix

    def _fill(self, waiting: Iterator[int]) -> bool:
        """Read prompts into the free rows; return whether there was one."""
        began = False
        for number in itertools.islice(waiting, self._most - len(self._rows)):
            prompt = self._prompts[number]
            if self._prefix is not None:
                self._cache.copy_row(self._prefix, 0, len(self._rows), self._shared)
            rest = torch.tensor(prompt[self._shared :])
            row = _Row(number, len(prompt), list(prompt), self._sentences[number])
            if self._decoding.repetition_penalty != 1:
                row.seen = torch.tensor(sorted(set(prompt)))
            scores = self._network.read(rest, self._cache, len(self._rows), self._shared)
            self._rows.append(row)
            self._take([row], scores[None])
            self._show({})
            began = True
        if began:
            self._leave()
        return began

    def _step(self) -> None:
        if not self._rows:
            return
        last = torch.tensor([row.tokens[-1] for row in self._rows])
        places = torch.tensor([len(row.tokens) - 1 for row in self._rows])
        self._take(self._rows, self._network.step(last, self._cache, places))

    def _take(self, rows: Sequence[_Row], scores: Tensor) -> None:
        """Append the best token of each row."""
        if self._decoding.repetition_penalty != 1:
            for row, own in zip(rows, scores, strict=True):
                known = own[row.seen]
                factor = self._decoding.repetition_penalty
                own[row.seen] = torch.where(known < 0, known * factor, known / factor)
        best = scores.argmax(dim=-1).tolist()
        for place, row in enumerate(rows):
            if (own := self._allowed.get(row.number)) is not None:
                best[place] = int(own[scores[place, own].argmax()])
        for row, token in zip(rows, best, strict=True):
            row.tokens.append(token)
            if self._decoding.ends_sentence(row.tokens):
                row.sentences -= 1
                row.done = row.sentences == 0
            elif row.sentences > 0 and token in self._decoding.line_ends:
                row.done = True
            if len(row.seen) and token not in row.seen:
                row.seen = torch.cat((row.seen, torch.tensor([token])))
        self._count += len(rows)

    def _leave(self) -> None:
        """Take the rows that are done out; the last row moves into the place of one that goes."""
        ended: dict[int, list[int]] = {}
        for place in range(len(self._rows) - 1, -1, -1):
            row = self._rows[place]
            new = row.tokens[row.prompt :]
            if not row.done and new[-1] not in self._decoding.ends and len(new) < self._decoding.max_new_tokens:
                continue
            ended[row.number] = new
            mover = self._rows.pop()
            if mover is not row:
                self._cache.copy_row(self._cache, len(self._rows), place, len(mover.tokens))
                self._rows[place] = mover
        self._answers |= ended
        self._show(ended)

    def _show(self, ended: dict[int, list[int]]) -> None:
        self._report(len(self._answers), self._count, len(self._prompts) * self._decoding.max_new_tokens, ended)
