"""Prompts that fit the model: measured by its tokenizer, short for small models, within a budget of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllmrec.config import ProfileConfig
from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import ConfigError
from mllmrec.reason import prompt_limits
from mllmrec.reason.engine import HistoryItem, Item
from mllmrec.reason.engines import speed as timing
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.speed import Speed, speed_of
from mllmrec.reason.history_facts import HistoryFacts
from mllmrec.reason.history_prompts import HistoryLimits, HistoryPrompts
from mllmrec.reason.prompt_limits import history_limits
from mllmrec.reason.prompts import load_template, standard_template
from mllmrec.reason.token_budget import Estimate, measure_of

Tiny = Callable[[str], Path]
PLAIN = load_template("plain", "profile")


@pytest.fixture
def model(tiny: Tiny) -> TransformersModel:
    return TransformersModel(str(tiny("llama")), TransformersConfig(device="cpu"))


def test_texts_are_measured_by_the_model_s_own_tokenizer(model: TransformersModel) -> None:
    tokenizer, measure = model.loaded.processor.tokenizer, model.measure
    text = "a basadun of some kilobar, lomu and the rest of it"
    assert measure.count(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"]) > 10
    for tokens in (1, 2, 9, 17, 200):
        short = measure.shorten(text, tokens)
        assert measure.count(short.removesuffix("…")) <= tokens
        assert short == text if tokens == 200 else text.startswith(short.removesuffix("…"))
    assert measure.shorten(text, 20).removesuffix("…") in {text[:n] for n, sign in enumerate(text) if sign == " "}
    assert isinstance(measure_of(object()), Estimate)  # no tokenizer that gives places


def test_limits_follow_model_context_and_settings(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ProfileConfig(engine="transformers", model="x", recency=2.0)
    assert history_limits(stage, PLAIN, None) == HistoryLimits(3000, 128, 2.0)
    assert history_limits(stage, PLAIN, model) == HistoryLimits(128, 12, 2.0)  # the tiny model is a small one
    monkeypatch.setattr("mllmrec.reason.engines.local_model._LARGE", 1)
    assert history_limits(stage, PLAIN, model).item_tokens == 128
    own = stage.model_copy(update={"max_tokens": 90, "item_tokens": 11})
    assert history_limits(own, PLAIN, model) == HistoryLimits(90, 11, 2.0)
    words = model.measure.count(PLAIN.wording) + 64
    model.settings["max_position_embeddings"] = words + 192 + 150
    assert history_limits(stage, PLAIN, model).tokens == 150
    model.settings["max_position_embeddings"] = words + 192 + 20
    with pytest.raises(ConfigError, match="leave no room for an item of 128; lower profile.max_new_tokens"):
        history_limits(stage, PLAIN, model)


def test_a_budget_of_seconds_shortens_histories_in_steps(
    model: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = model.measure.count(PLAIN.wording) + 64
    stage = ProfileConfig(engine="transformers", model="x", max_new_tokens=100, max_tokens=2000)

    def tokens(seconds: float, prompt: float) -> int:
        monkeypatch.setattr(prompt_limits, "speed_of", lambda model: Speed(prompt, answer=200.0))
        return history_limits(stage.model_copy(update={"seconds": seconds}), PLAIN, model).tokens

    # Half of the second goes to 100 new tokens; the other half reads the words of the prompt, and 300 more.
    assert tokens(1.0, 2 * (words + 300)) == 256 == tokens(1.0, 2 * (words + 260))
    assert tokens(1.0, 2 * (words + 5000)) == 2000  # the setting still limits it
    with pytest.raises(ConfigError, match=r"profile.seconds=0.4 buys no history .* it takes .* s, or a lower"):
        tokens(0.4, 1000.0)
    monkeypatch.setattr(prompt_limits, "speed_of", lambda model: None)
    assert history_limits(stage.model_copy(update={"seconds": 0.1}), PLAIN, model).tokens == 2000


def test_a_speed_is_timed_once_and_kept(
    model: TransformersModel, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times: list[Speed] = []
    timed = timing._time
    monkeypatch.setattr(timing, "_time", lambda model: times.append(timed(model)) or times[-1])
    assert speed_of(model) == speed_of(model) == times[0] and len(times) == 1
    assert times[0].prompt > 0 and times[0].answer > 0
    (file,) = (tmp_path / "mllmrec" / "speeds").iterdir()
    for damaged in ("{", "[]", '{"prompt": -1, "answer": 5}', '{"prompt": "x"}'):
        file.write_text(damaged)
        assert speed_of(model) == times[-1]
    assert len(times) == 5
    other = TransformersModel(str(tiny("llava")), TransformersConfig(device="cpu"))
    assert speed_of(other) is None


def test_a_small_model_reads_a_line_of_facts() -> None:
    assert [standard_template("auto", small=small) for small in (True, False)] == ["plain", "preferences"]
    assert standard_template("evidence", small=True) == "evidence"
    cup = Item("Brightwell Cup", "Brightwell", ("Kitchen", "Cups"), "Glazed stoneware.", 3.0, ())
    bowl = Item("Brightwell Soup Bowl of glazed stoneware", "Brightwell", ("Kitchen", "Bowls"), "", 3.0, ())
    vase = Item("Vase <b>", "Corvid", ("Home",), "", None, ())
    others = [Item(f"Lamp {n}", "", ("Light",), "", None, ()) for n in range(5)]
    items, looks = [cup, vase, bowl, *others], ["A round red object with dots.", "", "A round object.", *[""] * 5]
    facts = HistoryFacts(items, looks, Estimate())
    values, limits = {"category": "Kitchen", "words": "50"}, HistoryLimits(400, 5, 0.0)
    prompts = HistoryPrompts(items, PLAIN, values, limits, Estimate(), facts)
    request = prompts.request([HistoryItem(n, looks[n], None) for n in (2, 1, 0)])
    # Of three items, what stands in one counts; the newest title comes first, without its brand, cut at a word.
    line = "Kinds: kitchen, bowls, cups. Looks: round, dots, red. Bought: Cup, Vase \u2039b\u203a, Soup Bowl."
    assert request.text.startswith(f"{line}\n\n") and request.opening == "This customer likes"
    assert PLAIN.retry(request, 1, {"words": "50"}).opening
    # The words of an answer: those of the line, and those that the answers of all examples share.
    assert {"Soup", "round", "and", "chosen"} <= set(request.words) and not {"Scarf", "grey", "kettle"} & set(
        request.words
    )
    short = HistoryPrompts(items, PLAIN, values, HistoryLimits(10, 5, 0.0), Estimate(), facts)
    assert short.request([HistoryItem(0, "", None)]).text.startswith("Kinds: cups, kitchen.\n")
    assert facts.line([7], 99, 5) == "Kinds: light. Bought: Lamp 4." and facts.line([], 99, 5) == "(nothing is known)"


def test_older_templates_keep_their_digest_and_odd_ones_are_refused(tmp_path: Path) -> None:
    old = load_template("preferences", "profile")
    assert old.digest == replace(old, layout="elements", opening="", sentences=0, examples=()).digest
    assert old.digest != replace(old, layout="facts").digest != replace(old, opening="It").digest
    own = tmp_path / "own.toml"
    values: dict[str, Any] = {"name": '"x"', "version": "1", "ask": '"profile"', "system": '""', "text": '"{items}"'}
    bad = {
        "layout": ['"table"'],
        "opening": ["3"],
        "sentences": ["-1", "true"],
        "closed": ["1"],
        "examples": ["[1]", "7"],
    }
    for key, value in ((key, value) for key, odd in bad.items() for value in odd):
        own.write_text("\n".join(f"{k} = {v}" for k, v in {**values, "retries": '["again"]', key: value}.items()))
        with pytest.raises(ConfigError, match=rf"own.toml: .*{key} must"):
            load_template(str(own), "profile")
