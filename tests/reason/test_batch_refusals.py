"""A batch with an unusable picture, or a request refused for good, ends without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mllmrec_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.pipeline import run
from mllmrec.reason.batch_files import BatchStage
from mllmrec.reason.cache import open_cache
from mllmrec.reason.generate import GenerationLimits

SETTINGS = ["describe.engine=openai", "describe.model=m", "server.base_url=http://127.0.0.1:9/v1"]
ITEMS = 12


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A dataset whose first picture is broken once it is prepared; the second item has one good and one broken."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    rows = []
    for n in range(ITEMS):
        names = [f"p{n}.png"] if n != 1 else ["p1.png", "p1b.png"]
        for name in names:
            Image.new("RGB", (40, 30), (20 * n, 90, len(name) * 20)).save(folder / "images" / name)
        rows.append({"item": f"p{n}", "title": f"Lamp number {n}", "images": [f"images/{name}" for name in names]})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"u{user},p{(user + step) % ITEMS},{step}" for user in range(20) for step in range(6)]
    (folder / "interactions.csv").write_text("\n".join(["user,item,timestamp", *lines]) + "\n")
    result = CliRunner().invoke(app, ["prepare", str(folder), "--out", str(tmp_path / "data")])
    assert result.exit_code == 0, result.output
    dataset = load(tmp_path / "data")
    images = dict(zip(dataset.item_ids.to_list(), dataset.items["images"].to_list(), strict=True))
    for name in (images["p0"][0], images["p1"][1]):
        (dataset.folder / name).write_bytes(b"\xff\xd8\xff no picture")
    return tmp_path / "data"


def config() -> Config:
    return load_config(assignments=SETTINGS)


def results(batch: Path, file: Path, refuse: int = -1) -> None:
    """Write a good answer a row, but a 400 for the row `refuse`."""
    lines = []
    for n, line in enumerate(batch.read_text().splitlines()):
        key = json.loads(line)["custom_id"]
        text = f"A plain square, number {n}, in soft colours on a white ground with a printed label."
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop", "index": 0}]}
        response = {"status_code": 200, "body": body}
        if n == refuse:
            response = {"status_code": 400, "body": {"object": "error", "message": "the prompt is too long"}}
        lines.append(json.dumps({"custom_id": key, "response": response, "error": None}))
    file.write_text("\n".join(lines) + "\n")


def described(dataset: Dataset, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Status and reason by item; there is no server at the address."""
    table = run(dataset, tmp_path / "run", config(), until="describe", cache=tmp_path / "c.sqlite").describe.table
    return {row["id"]: (row["status"], row["reason"]) for row in table.iter_rows(named=True)}


@pytest.mark.parametrize("wrote_here", [True, False])
def test_items_without_a_usable_picture_are_recorded_and_the_stage_ends(
    shop: Path, tmp_path: Path, wrote_here: bool
) -> None:
    dataset, cache = load(shop), tmp_path / "c.sqlite"
    with open_cache(cache if wrote_here else tmp_path / "other.sqlite") as opened:
        assert BatchStage(dataset, config(), opened, None).write(tmp_path / "b.jsonl") == (ITEMS - 1, 1)
    results(tmp_path / "b.jsonl", tmp_path / "r.jsonl")
    with open_cache(cache) as opened:
        summary = BatchStage(dataset, config(), opened, None).read(tmp_path / "r.jsonl")
    first = ITEMS - 1 if wrote_here else ITEMS
    assert summary.startswith(f"{ITEMS - 1} of {first} requests answered")
    assert ("1 without a usable picture" in summary) is not wrote_here and "open" not in summary
    rows = described(dataset, tmp_path)
    assert rows["p0"][0] == "text-only" and "picture" in rows["p0"][1]
    assert rows["p1"][0] == "ok" and rows["p1"][1]  # answered by its good picture; the reason tells of the other
    assert [rows[f"p{n}"] for n in range(2, ITEMS)] == [("ok", "")] * (ITEMS - 2)


def test_a_row_refused_for_good_is_recorded_and_repeated_on_demand_alone(shop: Path, tmp_path: Path) -> None:
    dataset, cache = load(shop), tmp_path / "c.sqlite"
    with open_cache(cache) as opened:
        BatchStage(dataset, config(), opened, None).write(tmp_path / "b.jsonl")
        results(tmp_path / "b.jsonl", tmp_path / "r.jsonl", refuse=4)
        summary = BatchStage(dataset, config(), opened, None).read(tmp_path / "r.jsonl")
    assert summary == f"{ITEMS - 2} of {ITEMS - 1} requests answered, 1 failed, 1 refused for good"
    rows = described(dataset, tmp_path)
    assert [row for row in rows.values() if row[0] == "unusable"] == [
        ("unusable", "HTTP status 400: the prompt is too long")
    ]
    assert sum(status == "ok" for status, _ in rows.values()) == ITEMS - 2
    with open_cache(cache) as opened:
        assert BatchStage(dataset, config(), opened, None).write(tmp_path / "none.jsonl") == (0, 0)
        again = BatchStage(dataset, config(), opened, None, retry_failed=True)
        assert again.write(tmp_path / "again.jsonl") == (1, 0)
        results(tmp_path / "again.jsonl", tmp_path / "mended.jsonl")
        mended = BatchStage(dataset, config(), opened, None).read(tmp_path / "mended.jsonl")
        assert mended == "1 of 1 requests answered"
        assert BatchStage(dataset, config(), opened, None, retry_failed=True).write(tmp_path / "no.jsonl") == (0, 0)


def test_the_command_line_says_it_and_asks_no_server(shop: Path, tmp_path: Path) -> None:
    options = [str(shop), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c.sqlite")]
    options += [part for setting in SETTINGS for part in ("--set", setting)]
    written = CliRunner().invoke(app, ["describe", *options, "--batch-out", str(tmp_path / "b.jsonl")])
    assert written.exit_code == 0
    assert f"{ITEMS - 1} requests in" in written.output
    assert "1 without a usable picture are recorded as text only" in written.output
    results(tmp_path / "b.jsonl", tmp_path / "r.jsonl", refuse=3)
    read = CliRunner().invoke(app, ["describe", *options, "--batch-in", str(tmp_path / "r.jsonl")])
    assert read.exit_code == 0, read.output
    assert f"{ITEMS - 2} of {ITEMS - 1} requests answered, 1 failed, 1 refused for good" in read.output


def test_a_limit_stops_the_stage_that_is_named(shop: Path, tmp_path: Path) -> None:
    options = [str(shop), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c.sqlite"), "--limit", "4"]
    stopped = CliRunner().invoke(app, ["profile", *options])
    assert stopped.exit_code == 0
    assert "profile users: stopped after 4 requests by --limit" in stopped.output
    assert (tmp_path / "run" / "describe").is_dir()
    others = [str(shop), "--out", str(tmp_path / "two"), "--cache", str(tmp_path / "two.sqlite"), "--limit", "4"]
    stopped = CliRunner().invoke(app, ["describe", *others])
    assert "describe items: stopped after 4 requests by --limit" in stopped.output
    limits = GenerationLimits(limit=4, stage="profile")
    assert [limits.of_stage(stage, 0.5).limit for stage in ("describe", "profile")] == [0, 4]
    assert GenerationLimits(limit=4).of_stage("describe", 0.5) == GenerationLimits(limit=4, max_failures=0.5)
