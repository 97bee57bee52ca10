"""Describe items and profile users with a chat model: prompts, retries, and the verdict on each reply.

Each attempt adds the template's next instruction, so a retry differs from what failed and is the same in every run.
The reason of the last failure stays with the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.reason.answer_checks import KEPT, VERSION, check_reply
from mllmrec.reason.answer_grounds import SAYS_NOTHING, STRAY, stray
from mllmrec.reason.engine import (
    NO_RESULTS,
    Answer,
    ChatModel,
    ChatRequest,
    HistoryItem,
    Item,
    Material,
    Reply,
    Report,
    no_report,
)
from mllmrec.reason.history_prompts import HistoryPrompts, catalogue_fields
from mllmrec.reason.prompts import ESTIMATE, Template, element
from mllmrec.reason.token_budget import Measure

_CHECK_SIDE = 64  # a picture is decoded at a fraction of its size where only its soundness is in question


@dataclass(frozen=True, slots=True)
class RetryingChat:
    """A chat model that retries unusable answers with the next instruction of a template.

    Attributes:
        model: the engine.
        template: the prompt's wording.
        values: of the template's places beside the data: {category} and {words}.
        retries: attempts after the first.
        measure: of the model's tokens.
    """

    model: ChatModel
    template: Template
    values: Mapping[str, str]
    retries: int
    measure: Measure = ESTIMATE

    @property
    def fingerprint(self) -> str:
        """Return model, wording and checks; the data is in the request."""
        return f"{self.model.fingerprint} template={self.template.digest} retries={self.retries} {VERSION}"

    def answers(self, requests: Sequence[ChatRequest], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer per request, in order; no answer depends on the other requests of the call.

        An answer that was cut, a list or repetitive in every attempt is "flagged": its text is kept. A request is
        reported as done once no attempt is left to it.
        """
        judging = _Judging(self, requests, report)
        pending = list(range(len(requests)))
        for attempt in range(self.retries + 1):
            pending = judging.attempt(pending, attempt)
            if not pending:
                break
        return judging.answers

    def attempt(self, request: ChatRequest, number: int) -> ChatRequest:
        """Return the request of an attempt, counted from 0."""
        return self.template.retry(request, number, self.values) if number else request


class _Judging:
    """The answers of one call, judged as their replies come.

    Args:
        chat: the model, and how often it is tried.
        requests: of the call.
        report: called with the answers that are final, and with the tokens of all attempts.
    """

    def __init__(self, chat: RetryingChat, requests: Sequence[ChatRequest], report: Report[Answer]) -> None:
        self._chat, self._requests, self._report = chat, requests, report
        self.answers: list[Answer] = [Answer("", "failed")] * len(requests)
        self._final: set[int] = set()
        self._tokens = 0
        self._lock = threading.Lock()

    def attempt(self, pending: Sequence[int], number: int) -> list[int]:
        """Try the pending requests once; return those that another attempt may help."""
        batch = [self._chat.attempt(self._requests[n], number) for n in pending]
        before, judged = self._tokens, set[int]()

        def hear(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Reply] = NO_RESULTS) -> None:
            with self._lock:
                new = {place: reply for place, reply in results.items() if place not in judged}
                judged.update(new)
                final = {}
                for place, reply in new.items():
                    n = pending[place]
                    self.answers[n] = _better(
                        self.answers[n], to_answer(reply, batch[place], number, self._requests[n])
                    )
                    if number == self._chat.retries or not _retriable(reply, self.answers[n]):
                        final[n] = self.answers[n]
                self._final |= final.keys()
                self._tokens = max(self._tokens, before + tokens)
                self._report(len(self._final), self._tokens, before + most if most else 0, final)

        replies = self._chat.model.complete(batch, hear)
        hear(len(batch), results=dict(zip(range(len(batch)), replies, strict=True)))
        return [n for n in pending if n not in self._final]


def _retriable(reply: Reply, answer: Answer) -> bool:
    """Return whether another attempt may bring a better answer."""
    return reply.finish not in ("failed", "refused") and answer.status in ("flagged", "unusable")


def to_answer(reply: Reply, request: ChatRequest, attempt: int = 0, first: ChatRequest | None = None) -> Answer:
    """Judge a reply.

    Args:
        reply: as the engine gave it.
        request: what it replies to.
        attempt: number of the attempt, from 0.
        first: the request of the first attempt, whose words are the data's; None: this one.
    """
    prompt = "\n".join((request.text, *(answer for _, answer in request.examples)))
    text, fault = check_reply(reply, prompt, request.sentences)
    fault = fault or stray(text, first or request)
    if reply.finish == "failed":
        return Answer("", "failed", fault)
    if not fault:
        return Answer(text)
    number = f" (attempt {attempt + 1})" if attempt else ""
    kept = fault in (*KEPT, SAYS_NOTHING) or fault.startswith(STRAY)
    return Answer(text if kept else "", "flagged" if kept else "unusable", f"{fault}{number}")


def _better(before: Answer, after: Answer) -> Answer:
    """Return the later answer, but never nothing in the place of something, nor a later slip for an earlier one."""
    kept = ("unusable", "failed", "flagged") if before.reason.startswith(STRAY) else ("unusable", "failed")
    return before if before.status == "flagged" and after.status in kept else after


class ChatDescriber:
    """The Describer over a chat model: an item's pictures and a template -> D_s.

    Args:
        chat: model, template and number of retries.
        item_tokens: estimated tokens that the item's own text may take, where the template has it.
        max_images: pictures per item; of more (the frames of a video), so many spread evenly.
    """

    def __init__(self, chat: RetryingChat, *, item_tokens: int, max_images: int) -> None:
        self._chat, self._item_tokens, self._max_images = chat, item_tokens, max_images

    @property
    def fingerprint(self) -> str:
        """Return model, wording, checks and limits."""
        return f"chat-description 1 {self._chat.fingerprint} images={self._max_images}"

    @property
    def batch_size(self) -> int:
        """Return the batch size of the model."""
        return self._chat.model.batch_size

    def with_model(self, change: Callable[[ChatModel], ChatModel]) -> ChatDescriber:
        """Return the same over another model, which `change` returns for this one."""
        chat = replace(self._chat, model=change(self._chat.model))
        return ChatDescriber(chat, item_tokens=self._item_tokens, max_images=self._max_images)

    def material(self, item: Item) -> Material:
        """Return the prompt; items with the same pictures and the same prompt get one answer."""
        request = self.request(item)
        return {"system": request.system, "text": request.text}

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return the pictures that are looked at."""
        return spread(item.images, self._max_images)

    def describe(self, items: Sequence[Item], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer per item; an item without a usable picture is left its text, and the reason."""
        answers: list[Answer] = [Answer("", "text-only")] * len(items)
        requests = {n: self.request(item) for n, item in enumerate(items) if item.images}
        numbers = list(requests)

        def hear(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Answer] = NO_RESULTS) -> None:
            final = {numbers[place]: answer for place, answer in results.items() if answer.status != "failed"}
            report(done, tokens, most, final)

        for n, answer in zip(numbers, self._chat.answers(list(requests.values()), hear), strict=True):
            answers[n] = answer
        self._without_bad_pictures(answers, {n: requests[n] for n in requests if answers[n].status == "failed"})
        return answers

    def _without_bad_pictures(self, answers: list[Answer], failed: dict[int, ChatRequest]) -> None:
        """Try failed requests without their bad pictures: one of them is no reason to lose the rest."""
        repeated: dict[int, tuple[ChatRequest, str]] = {}
        for n, request in failed.items():
            usable, reason = usable_request(request)
            if reason and usable:
                repeated[n] = usable, reason
            elif reason:
                answers[n] = Answer("", "text-only", reason)
        if repeated:
            again = self._chat.answers([request for request, _ in repeated.values()])
            for (n, (_, reason)), answer in zip(repeated.items(), again, strict=True):
                answers[n] = with_reason(answer, reason)

    def request(self, item: Item) -> ChatRequest:
        """Return the prompt, with the item's pictures."""
        values = dict(self._chat.values)
        if self._chat.template.has_item:
            values["item"] = element("item", catalogue_fields(item), self._item_tokens, measure=self._chat.measure)
        return self._chat.template.request(values, self.pictures(item))


def spread(images: Sequence[Path], most: int) -> tuple[Path, ...]:
    """Return at most `most` pictures, the first and others at even distances."""
    if len(images) <= most:
        return tuple(images)
    return tuple(images[n * len(images) // most] for n in range(most))


def usable_request(request: ChatRequest) -> tuple[ChatRequest | None, str]:
    """Return a request with those of its pictures that open, None if none does, and why the others do not."""
    good, reasons = [], []
    for path in request.images:
        try:
            open_image(path, side=_CHECK_SIDE)
            good.append(path)
        except ImageRefusedError as error:
            reasons.append(str(error))
    usable = replace(request, images=tuple(good)) if good or not request.images else None
    return usable, "; ".join(reasons)


def with_reason(answer: Answer, reason: str) -> Answer:
    """Return an answer with one more reason."""
    return replace(answer, reason="; ".join(part for part in (answer.reason, reason) if part))


class ChatProfiler:
    """Write profiles P_u with a chat model; a prompt holds the history and the catalogue's entries of its items."""

    def __init__(self, chat: RetryingChat, prompts: HistoryPrompts) -> None:
        self._chat, self._prompts = chat, prompts

    @property
    def fingerprint(self) -> str:
        """Return model, wording and checks; the limits show in the prompt."""
        return f"chat-profile 1 {self._chat.fingerprint}"

    @property
    def batch_size(self) -> int:
        """Return the batch size of the model."""
        return self._chat.model.batch_size

    def with_model(self, change: Callable[[ChatModel], ChatModel]) -> ChatProfiler:
        """Return the same over another model, which `change` returns for this one."""
        return ChatProfiler(replace(self._chat, model=change(self._chat.model)), self._prompts)

    def material(self, history: Sequence[HistoryItem]) -> Material:
        """Return the whole prompt; users whose histories read the same get one answer."""
        request = self.request(history)
        return {"system": request.system, "text": request.text}

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """Return the prompt over a history."""
        return self._prompts.request(history)

    def profile(self, histories: Sequence[Sequence[HistoryItem]], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer a history."""
        return self._chat.answers([self.request(history) for history in histories], report)
