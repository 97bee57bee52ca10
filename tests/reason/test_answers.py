"""Answers that cannot be used are seen, asked for again within a cap, and flagged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from mllmrec.reason.answer_checks import check_reply
from mllmrec.reason.cache import open_cache
from mllmrec.reason.chat import ChatDescriber, RetryingChat, spread
from mllmrec.reason.engine import NO_RESULTS, Answer, ChatRequest, Item, Reply, Report, no_report
from mllmrec.reason.generate import open_requests
from mllmrec.reason.prompts import load_template

QUESTION = "Write a note of one paragraph, at most 100 words, on what of its looks a buyer would weigh: colours."
GOOD = (
    "A low black tin box with a hinged lid and a small brass clasp; the sides carry a fine embossed pattern of leaves.",
    "Une robe d'\u00e9t\u00e9 bleue en lin, sans manches, avec une ceinture fine et deux poches.",
    "\u7ea2\u8272\u68c9\u8d28\u886c\u886b\uff0c\u914d\u6709\u84dd\u8272\u7ebd\u6263\uff0c\u9002\u5408\u590f\u5929\u7a7f\u7740\u3002",
    "Red.",
    "I like this: unable to break, sorry for none.",
)


@pytest.mark.parametrize("text", GOOD)
def test_good_answers_pass_in_any_language(text: str) -> None:
    assert check_reply(Reply(text), QUESTION) == (text, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty answer"),
        (" \n...!! 12 ", "empty answer"),
        ("The shirt is red and blue. " * 8, "looping answer"),
        ("A red shirt, and and and and and and and and and and and and and", "looping answer"),
        ("\u7ea2\u8272\u886c\u886b\u3002" * 9, "looping answer"),
        ("I\u2019m sorry, but I can't help with that picture.", "refusal"),
        ("As an AI language model I see nothing.", "refusal"),
        ("Lo siento, no puedo ver la imagen.", "refusal"),
        ("\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u67e5\u770b\u56fe\u7247\u3002", "refusal"),
        (f"Sure: {QUESTION}", "copy of the prompt"),
    ],
)
def test_answers_that_say_nothing_are_seen(text: str, said: str) -> None:
    assert check_reply(Reply(text), QUESTION) == ("", said)


def test_cut_answers_and_thoughts() -> None:
    cut = check_reply(Reply("A red shirt with a brea", "length"), QUESTION)
    assert cut == ("A red shirt with a\u2026", "cut at the limit of new tokens")  # never inside a word
    assert check_reply(Reply("", "failed", "no memory"), QUESTION) == ("", "no memory")
    assert check_reply(Reply("<think>Well. It is red?</think>\n\nA red shirt."), QUESTION) == ("A red shirt.", "")


class Scripted:
    """Answers by what the text of a request says, and remembers what it was asked."""

    fingerprint, batch_size = "scripted", 8

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.asked = list(replies), list[Sequence[ChatRequest]]()

    def complete(self, requests: Sequence[ChatRequest], report: Report = no_report) -> list[Reply]:
        self.asked.append(requests)
        return [self.replies[min(len(self.asked), len(self.replies)) - 1] for _ in requests]


def asker(model: Scripted, retries: int = 2) -> RetryingChat:
    return RetryingChat(model, load_template("attributes", "describe"), {"category": "toys", "words": "50"}, retries)


CUT = Reply("A red ball. It has a", "length")


@pytest.mark.parametrize(
    ("replies", "answer", "calls"),
    [
        ((Reply("A red ball."),), Answer("A red ball."), 1),
        ((Reply(""), Reply("A red ball.")), Answer("A red ball."), 2),
        ((Reply(""),), Answer("", "unusable", "empty answer (attempt 3)"), 3),
        ((CUT,), Answer("A red ball.", "flagged", "cut at the limit of new tokens (attempt 3)"), 3),
        ((CUT, Reply("")), Answer("A red ball.", "flagged", "cut at the limit of new tokens"), 3),
        ((Reply("", "failed", "no memory"),), Answer("", "failed", "no memory"), 1),
    ],
)
def test_retries_differ_are_capped_and_keep_the_reason(replies: tuple[Reply], answer: Answer, calls: int) -> None:
    model = Scripted(*replies)
    assert asker(model).answers([ChatRequest("describe")]) == [answer]
    assert len({batch[0].text for batch in model.asked}) == len(model.asked) == calls


def test_only_what_failed_is_asked_again() -> None:
    class Picky(Scripted):
        def complete(self, requests: Sequence[ChatRequest], report: Report = no_report) -> list[Reply]:
            self.asked.append(requests)
            return [
                Reply("" if "bad" in r.text and len(self.asked) < 3 else f"An answer: {r.text[:5]}") for r in requests
            ]

    model = Picky()
    answers = asker(model).answers([ChatRequest("one"), ChatRequest("bad"), ChatRequest("three")])
    assert [answer.text[:13] for answer in answers] == ["An answer: on", "An answer: ba", "An answer: th"]
    assert [len(batch) for batch in model.asked] == [3, 1, 1]


def test_an_answer_is_reported_once_no_attempt_is_left_to_it() -> None:
    class Streaming(Scripted):
        """Its first two attempts at "bad" fail; each reply is reported as it comes, of three tokens."""

        def complete(self, requests: Sequence[ChatRequest], report: Report = no_report) -> list[Reply]:
            self.asked.append(requests)
            replies = [Reply("" if "bad" in r.text and len(self.asked) < 3 else f"A {r.text[:5]}") for r in requests]
            for n, reply in enumerate(replies):
                report(n + 1, 3 * (n + 1), 3 * len(requests), {n: reply})
            return replies

    seen: list[tuple[int, int, int, dict[int, str]]] = []

    def hear(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Answer] = NO_RESULTS) -> None:
        seen.append((done, tokens, most, {n: answer.text for n, answer in results.items()}))

    answers = asker(Streaming()).answers([ChatRequest("one"), ChatRequest("bad"), ChatRequest("three")], hear)
    assert [answer.text for answer in answers] == ["A one", "A bad", "A three"]
    assert [step for step in seen if step[2]] == [
        (1, 3, 9, {0: "A one"}),
        (1, 6, 9, {}),
        (2, 9, 9, {2: "A three"}),
        (2, 12, 12, {}),  # a retry has tokens of its own, after those of the first attempt
        (3, 15, 15, {1: "A bad"}),
    ]


def test_one_bad_picture_is_left_out_and_several_are_spread(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    for n in range(9):
        Image.new("RGB", (20, 20), (20 * n, 0, 0)).save(tmp_path / f"{n}.png")
    good = tuple(tmp_path / f"{n}.png" for n in range(9))

    class Looking(Scripted):
        def complete(self, requests: Sequence[ChatRequest], report: Report = no_report) -> list[Reply]:
            self.asked.append(requests)
            return [
                Reply("", "failed", "unreadable")
                if tmp_path / "bad.jpg" in r.images
                else Reply(f"{len(r.images)} seen")
                for r in requests
            ]

    model = Looking()
    describer = ChatDescriber(asker(model), item_tokens=50, max_images=4)
    shop = [
        Item("t", "", (), "", None, images)
        for images in ((), good, (tmp_path / "bad.jpg", good[0]), (tmp_path / "bad.jpg",))
    ]
    answers = describer.describe(shop)
    assert [(answer.text, answer.status) for answer in answers] == [
        ("", "text-only"),
        ("4 seen", "ok"),
        ("1 seen", "ok"),
        ("", "text-only"),
    ]
    assert [bool(answer.reason) for answer in answers] == [False, False, True, True]
    assert [path.stem for path in spread(good, 4)] == ["0", "2", "4", "6"]


def test_requests_without_an_answer_are_open(tmp_path: Path) -> None:
    requests = {key: ChatRequest(f"describe {key}") for key in ("a", "b", "c")}
    with open_cache(tmp_path / "c.sqlite") as cache:
        cache.put({"a": Answer("known")})
        cache.put({"c": Answer("", "unusable", "refusal")})
        assert list(open_requests(requests, cache)) == ["b"]
        assert list(open_requests(requests, cache, retry_failed=True)) == ["b", "c"]
