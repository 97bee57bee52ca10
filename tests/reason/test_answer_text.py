"""Thoughts, control tokens, code fences and words to the reader are no part of an answer."""

from __future__ import annotations

import time

import pytest

from mllmrec.reason.answer_checks import CUT, CUT_THINKING, THINKING, check_reply
from mllmrec.reason.answer_text import opens_thought, without_markup, without_thoughts
from mllmrec.reason.engine import Reply

PROMPT = "Write a note of one paragraph, at most 100 words, on what of its looks a buyer would weigh: colours."
MUG = "A red ceramic mug with a wide handle."
THOUGHT = "The user wants a note on the mug. It is red. It has a handle"
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<Thought>", "</Thought>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("analysis", "assistantfinal"),  # the same channels, their marks dropped by the tokenizer
)


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_a_thought_is_removed_and_one_that_was_cut_is_no_answer(opening: str, closing: str) -> None:
    assert check_reply(Reply(f"{opening}{THOUGHT}.{closing}\n{MUG}"), PROMPT) == (MUG, "")
    assert check_reply(Reply(f"{opening}{THOUGHT}", "length"), PROMPT) == ("", CUT_THINKING)
    assert check_reply(Reply(f"{opening}{THOUGHT}.{closing}"), PROMPT) == ("", THINKING)
    assert "max_new_tokens" in CUT_THINKING and "2048" in CUT_THINKING


@pytest.mark.parametrize(
    "text",
    [
        "Okay, the user wants me to describe the picture. Let me look at it.",
        "The user wants a description of the item in one paragraph.",
        "First, I need to describe what I see.",
        "Let me think about the colours first.",
        "We need to write a paragraph on the item.",
        "Here's my thinking process: the item is red.",
    ],
)
def test_thoughts_without_any_mark_are_seen_by_their_opening(text: str) -> None:
    assert check_reply(Reply(text), PROMPT) == ("", THINKING)
    assert check_reply(Reply(text, "length"), PROMPT) == ("", CUT_THINKING)


@pytest.mark.parametrize(
    "text",
    [
        "The user prefers sturdy tools; wants and needs recur.",
        "Well-made boots in brown leather.",
        "Let it shine: a lamp of brass.",
        "Sure-footed boots with a thick sole.",
        "Here is where it folds: a hinge of brass.",
        "Analysis of colour by an artist, framed.",
        "Heart <3 printed on a shirt, size [M].",
        "Describes itself: a description of a jug in white letters.",
        "A mug. Certainly, a gift for somebody.",
    ],
)
def test_descriptions_that_look_alike_stay_as_they_are(text: str) -> None:
    assert check_reply(Reply(text), PROMPT) == (text, "")


def test_thoughts_that_the_server_keeps_apart_are_recognized() -> None:
    assert check_reply(Reply("", "length", thinking=True), PROMPT) == ("", CUT_THINKING)
    assert check_reply(Reply(MUG, thinking=True), PROMPT) == (MUG, "")
    assert check_reply(Reply("", "length"), PROMPT) == ("", "empty answer")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"{MUG}<|im_end|>", MUG),
        (f"<|im_start|>assistant\n{MUG}<|im_end|>\n<|im_start|>user\nAnd now?", MUG),
        (f"<|start_header_id|>assistant<|end_header_id|>\n\n{MUG}<|eot_id|>", MUG),
        (f"<s> {MUG}</s>", MUG),
        (f"[INST] {MUG} [/INST]", MUG),
        (f"<start_of_turn>model\n{MUG}<end_of_turn>", MUG),
        (f"{MUG}<\uff5cend\u2581of\u2581sentence\uff5c>", MUG),
        ("A red <|reserved_7|> mug.", "A red mug."),
        (f"{MUG} <|im_", MUG),
        (f"```\n{MUG}\n```", MUG),
        (f"```text\n{MUG}", MUG),
        (f"Here is the note:\n```markdown\n{MUG}\n```\nLet me know if you need more.", MUG),
        (f"Sure! Here is a description of the item:\n\n{MUG}", MUG),
        (f"Sure! Here is {MUG}", f"Here is {MUG}"),
        (f"Certainly, {MUG}", MUG),
        (f"Of course! Below is the paragraph: {MUG}", MUG),
        (f"Here's what the pictures show:\n{MUG}", MUG),
        (f"**Description:** {MUG}", MUG),
        (f"Gerne! Hier ist die Beschreibung: {MUG}", MUG),
        (f"<answer>{MUG}</answer>", MUG),
        (f"{MUG} I hope this helps!", MUG),
        (f"{MUG}\n\nLet me know if you would like another one.", MUG),
        ("Sure!", "Sure!"),
        ("<|im_end|>", ""),
    ],
)
def test_markup_and_words_to_the_reader_go(text: str, clean: str) -> None:
    assert without_markup(text) == clean


def test_answers_that_are_cut_never_end_inside_a_word() -> None:
    assert check_reply(Reply("A red mug. It has a han", "length"), PROMPT) == ("A red mug.", CUT)
    assert check_reply(Reply("A red mug with a han", "length"), PROMPT) == ("A red mug with a\u2026", CUT)
    chinese = "\u7ea2\u8272\u68c9\u8d28\u886c\u886b\u914d\u6709\u84dd\u8272"
    assert check_reply(Reply(chinese, "length"), PROMPT) == (chinese, CUT)


def test_several_and_nested_thoughts() -> None:
    assert without_thoughts(f"<think>a</think>{MUG}<think>b</think>") == MUG
    assert without_thoughts(f"<think>a<think>b</think>c</think>{MUG}") == MUG
    assert without_thoughts(f"opened in the prompt</think>{MUG}") == MUG
    assert without_thoughts(f"{MUG} <think>more") == MUG
    assert opens_thought("<|im_start|>assistant\n<think>\n") and not opens_thought("<think>x</think>\n")


@pytest.mark.parametrize(
    "text",
    ["<think>" * 300_000, "<think></think>" * 200_000, "\n" * 2_000_000, " " * 999_999 + "<", "[INST]" * 300_000],
)
def test_hostile_texts_take_no_long_time(text: str) -> None:
    start = time.perf_counter()
    check_reply(Reply(text), PROMPT)
    assert time.perf_counter() - start < 5
