"""Requests answered outside: written as a batch, read back, and the stage then needs no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError
from mllmrec.pipeline import run
from mllmrec.reason.batch_files import BatchStage
from mllmrec.reason.cache import open_cache

NOWHERE = ["describe.engine=openai", "describe.model=m", "profile.kind=mean", "server.base_url=http://127.0.0.1:9/v1"]


def answered(batch: Path, results: Path) -> dict[str, str]:
    """Write a result a line, in another order; the text told for each custom_id."""
    told = {}
    lines = []
    for n, line in enumerate(batch.read_text().splitlines()):
        key = json.loads(line)["custom_id"]
        told[key] = (
            f"A plain object, the number {n} of those that were drawn, in two soft colours with a printed label."
        )
        message = {"message": {"role": "assistant", "content": told[key]}, "finish_reason": "stop", "index": 0}
        body = {"choices": [message], "object": "chat.completion"}
        lines.append(json.dumps({"custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}))
    results.write_text("\n".join(reversed(lines)) + "\n")
    return told


def test_descriptions_made_elsewhere_need_no_server(dataset: Dataset, tmp_path: Path) -> None:
    config = load_config(assignments=NOWHERE)
    with open_cache(tmp_path / "cache.sqlite") as cache:
        asked, refused = BatchStage(dataset, config, cache, None).write(tmp_path / "batch.jsonl")
        told = answered(tmp_path / "batch.jsonl", tmp_path / "results.jsonl")
        assert asked == len(told) > 0 and refused == 0
        summary = BatchStage(dataset, config, cache, None).read(tmp_path / "results.jsonl")
        assert summary == f"{asked:,} of {asked:,} requests answered"
        assert BatchStage(dataset, config, cache, None).write(tmp_path / "rest.jsonl") == (0, 0)
    made = run(dataset, tmp_path / "run", config, until="describe", cache=tmp_path / "cache.sqlite").describe
    assert set(made.texts) == set(told.values())


def test_other_engines_have_no_batch_files(dataset: Dataset, tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache.sqlite") as cache, pytest.raises(ConfigError, match='for engine = "openai"'):
        BatchStage(dataset, load_config(), cache, None)
