"""Batch files: rows are matched by custom_id, whatever happened to the file in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import InputError
from mllmrec.reason.batch_files import read_results, write_batch
from mllmrec.reason.engine import ChatRequest, Reply

CONFIG = ChatServerConfig(model="org/Tiny-VL", max_tokens=9, api_key_env="CHAT_KEY")
KEYS = [f"key{n}" for n in range(6)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(key: str, text: str, **changes: Any) -> str:
    body = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    row = {
        "id": "x",
        "custom_id": key,
        "response": {"status_code": 200, "request_id": "y", "body": body},
        "error": None,
    }
    return json.dumps({**row, **changes})


def test_a_batch_holds_what_a_server_would_be_sent_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", "sk-secret")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("<html>")
    requests = {
        "k1": ChatRequest("text", "system"),
        "k2": ChatRequest("look", images=(tmp_path / "a.png",)),
        "k3": ChatRequest("look", images=(tmp_path / "b.png",)),
    }
    assert write_batch(requests, tmp_path / "x.jsonl", CONFIG) == 2
    first, second = rows(tmp_path / "x.jsonl")
    assert first == {
        "custom_id": "k1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "org/Tiny-VL",
            "messages": [{"role": "system", "content": "system"}, {"role": "user", "content": "text"}],
            "max_tokens": 9,
            "temperature": 0.0,
            "seed": 999,
            "stream": False,
        },
    }
    assert second["body"]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "sk-secret" not in (tmp_path / "x.jsonl").read_text()


def test_a_long_batch_is_split_by_lines_and_by_bytes(tmp_path: Path) -> None:
    requests = {key: ChatRequest(f"question {key}") for key in KEYS}
    write_batch({"key0": requests["key0"]}, tmp_path / "one.jsonl", CONFIG)
    line = (tmp_path / "one.jsonl").stat().st_size
    for limits, sizes in (({"max_lines": 4}, [4, 2]), ({"max_bytes": 2 * line + 1}, [2, 2, 2])):
        assert write_batch(requests, tmp_path / "x.jsonl", CONFIG, **limits) == 6
        parts = [tmp_path / "x.jsonl", *sorted(tmp_path.glob("x.*.jsonl"))]
        assert [len(rows(part)) for part in parts] == sizes
        assert [row["custom_id"] for part in parts for row in rows(part)] == KEYS
    assert write_batch(requests, tmp_path / "x.jsonl", CONFIG) == 6
    assert not list(tmp_path.glob("x.*.jsonl"))  # the parts of the longer one before
    with pytest.raises(InputError, match="request key0 has .* bytes, more than a batch file may have"):
        write_batch(requests, tmp_path / "x.jsonl", CONFIG, max_bytes=50)
    with pytest.raises(InputError, match="name x.jsonl, not x.json"):
        write_batch(requests, tmp_path / "x.json", CONFIG)
    assert write_batch({}, tmp_path / "none.jsonl", CONFIG) == 0 and (tmp_path / "none.jsonl").read_text() == ""


def test_rows_are_matched_by_id_and_everything_odd_is_counted(tmp_path: Path) -> None:
    refused = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    lines = [
        result("key4", "four"),
        result("key1", "", response=None, error={"code": "expired", "message": "out of\ntime"}),
        result("stranger", "not yours"),
        result("key0", "", response=refused),
        "not json",
        json.dumps({"custom_id": 7}),
        result("key0", "zero"),  # a failed row, then a good one
        result("key4", "four again"),
        result("key3", "", response={"status_code": 200, "body": {"choices": []}}),
        result("key2", "two")[:-20],  # cut
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join(lines))
    found = read_results(path, KEYS)
    assert list(found.replies) == KEYS
    assert found.replies == {
        "key0": Reply("zero"),
        "key1": Reply("", "failed", "out of time"),
        "key2": Reply("", "failed", "the results hold no row for this request"),
        "key3": Reply("", "failed", "JSON that is no chat completion"),
        "key4": Reply("four"),
        "key5": Reply("", "failed", "the results hold no row for this request"),
    }
    counts = (found.missing, found.failed, found.doubled, found.foreign, found.unreadable)
    assert counts == (2, 3, 2, 1, 3)
    assert found.summary == (
        "2 of 6 requests answered, 2 missing, 3 failed, 2 doubled, 1 foreign, 3 unreadable; 4 are still open: the "
        "server gets them now, or --batch-out writes them"
    )


def test_the_parts_of_a_long_batch_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(result("key1", "one") + "\n")
    (tmp_path / "a.jsonl").write_text(result("key0", "zero") + "\n")
    assert read_results(tmp_path, KEYS[:2]).replies == {"key0": Reply("zero"), "key1": Reply("one")}


def test_results_of_something_else_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text(result("stranger", "x") + "\n")
    with pytest.raises(InputError, match="none of its 1 readable results answers a request of this run"):
        read_results(tmp_path / "out.jsonl", KEYS)
    with pytest.raises(InputError, match="holds no batch results"):
        read_results(tmp_path / "none.jsonl", KEYS)
    assert read_results(tmp_path / "out.jsonl", []).replies == {}
