"""Plans, limits and the cache of stages that ask a chat model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner, Result

from mllmrec.dataset import Dataset
from mllmrec.pipeline import run
from mllmrec.reason import request_plan
from mllmrec.reason.cache import open_cache
from mllmrec.reason.generate import GenerationLimits, LimitReached
from mllmrec.reason.request_plan import plan_requests
from tests.reason.chat_runs import Tiny, config, held, settings


def test_a_dry_run_counts_what_a_run_would_ask(small: Dataset, whole: Path, tiny: Tiny, tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        described, profiled = plan_requests(small, config(tiny("idefics3")), cache, ["describe", "profile"])
    assert (described.calls, described.cached, described.seconds) == (small.n_items, 0, None)
    assert described.new_tokens == 10 * small.n_items and described.prompt_tokens > 100 * small.n_items
    assert described.memory is not None and described.memory > 100_000
    assert profiled.calls >= 0.8 * small.n_users and "descriptions are not there yet" in profiled.note
    with open_cache(whole / "c.sqlite") as cache:
        done = plan_requests(small, config(tiny("idefics3")), cache, ["describe", "profile"])
        assert [(one.calls, one.seconds, one.note) for one in done] == [(0, 0.0, "")] * 2
        assert sum(one.cached for one in done) == held(whole)
        timed = [held.seconds for held in cache.holdings()]
    assert len(timed) == 2 and all(seconds > 0 for seconds in timed)


def test_a_plan_of_many_users_is_an_estimate_from_some_of_them(
    small: Dataset, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_cache(tmp_path / "c.sqlite") as cache:
        whole = plan_requests(small, config(tiny("idefics3")), cache, ["profile"])[0]
        monkeypatch.setattr(request_plan, "_PLANNED", 8)
        drawn = plan_requests(small, config(tiny("idefics3")), cache, ["profile"])[0]
    assert drawn.total == whole.total > 8 and drawn.calls == round(
        drawn.total * round(drawn.calls * 8 / drawn.total) / 8
    )
    assert drawn.prompt_tokens == pytest.approx(whole.prompt_tokens, rel=0.5)
    assert drawn.note.endswith(f"estimated from 8 of {whole.total:,} users") and "estimated" not in whole.note


def test_the_command_line_plans_limits_and_cares_for_the_cache(small: Dataset, tiny: Tiny, tmp_path: Path) -> None:
    def mllmrec(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    cache = ("--cache", tmp_path / "c.sqlite")
    sets = [word for text in settings(tiny("llava")) for word in ("--set", text)]
    words = ("describe", small.folder, "--out", tmp_path / "r", *cache, *sets, "--quiet")
    planned = mllmrec(*words, "--dry-run", "--json")
    assert json.loads(planned.stdout)["stages"][0]["calls"] == small.n_items, planned.output
    assert not (tmp_path / "r").exists()
    assert "nothing was generated" in mllmrec(*words, "--dry-run").stdout
    limited = mllmrec(*words, "--limit", "2")
    assert limited.exit_code == 0 and "stopped after 2 requests by --limit" in limited.stdout
    holdings = json.loads(mllmrec("cache", "stats", *cache, "--json").stdout)["holdings"]
    assert [(one["question"], one["rows"]) for one in holdings] == [("describe items", 2)]
    assert "describe items" in mllmrec("cache", "stats", *cache).stdout
    connection = sqlite3.connect(tmp_path / "c.sqlite")
    connection.execute("UPDATE generations SET text = 'x' WHERE key = (SELECT MIN(key) FROM generations)")
    connection.commit()
    connection.close()
    verified = mllmrec("cache", "verify", *cache)
    assert (verified.exit_code, verified.stdout) == (1, "2 rows, 1 damaged\n")
    assert mllmrec("cache", "prune", *cache).stdout == "1 rows removed\n"


def test_a_small_model_is_timed_for_the_plan(
    small: Dataset, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = config(tiny("llama"), "describe.engine=extractive", "profile.item_tokens=64")
    with open_cache(tmp_path / "c.sqlite") as cache:
        planned = plan_requests(small, own, cache, ["profile"])[0]
        states = config(tiny("llama"), "describe.engine=extractive", "profile.item_tokens=64", "profile.kind=hidden")
        hidden = plan_requests(small, states, cache, ["profile"])[0]
    assert planned.calls > 0 and planned.seconds is not None and planned.seconds > 0
    assert hidden.seconds is not None and 0 < hidden.seconds < planned.seconds
    assert planned.prompt_tokens > planned.calls * 20


def test_a_limit_stops_with_samples_and_loses_nothing(small: Dataset, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(LimitReached, match="stopped after 6 requests by --limit, 18 are left") as caught:
        run(
            small,
            tmp_path / "run",
            config(tiny("idefics3")),
            until="describe",
            cache=tmp_path / "c.sqlite",
            limits=GenerationLimits(limit=6),
        )
    assert len(caught.value.samples) == 5 and held(tmp_path) == 6
    assert not (tmp_path / "run" / "describe" / "stage.json").exists()
