"""Text from data steers nothing: no terminal, no markup, no spreadsheet, whatever titles, ids and folders hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mllmrec_bench.results import Result, append
from mllmrec_cli import console
from mllmrec_cli.main import app
from rich.cells import cell_len
from typer.testing import CliRunner

from mllmrec.foundation.tables import escape_formula

TEXTS = (
    "[bold red]x[/] [/] [link=http://x]",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eright to left\u2066",
    "=cmd|' /C calc'!A0",
    "long " * 2000,
    "<script>alert(1)</script> | `x` # **y**",
    "line\nbreak\rreturn\ttab",
    "漢字" * 40,
)
# Ids are read only where they are one line of at most 1,000 characters.
IDS = tuple(re.sub(r"[\n\r\t]", " ", text)[:900] + str(n) for n, text in enumerate(TEXTS))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shop whose every text is hostile, its name too."""
    folder = tmp_path_factory.mktemp("hostile")
    shop = folder / "=[red]shop"
    shop.mkdir()
    pairs = [(u, i) for u in range(8) for i in range(8) if (u + i) % 3]
    rows = [json.dumps({"user": IDS[u], "item": IDS[i]}) for u, i in pairs]
    (shop / "interactions.csv").write_text("user,item\n" + "".join(quoted(row) for row in rows), newline="")
    items = ({"item": IDS[n], "title": text, "brand": text, "categories": [text]} for n, text in enumerate(TEXTS))
    (shop / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def quoted(row: str) -> str:
    return ",".join('"' + json.loads(row)[side].replace('"', '""') + '"' for side in ("user", "item")) + "\n"


def harmless(output: str, *, columns: int = 80) -> None:
    """No character steers the terminal; tables and panels stay within its width, other lines are short."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b\u202a-\u202e\u2066-\u2069]", output)
    for line in output.splitlines():
        assert cell_len(line) <= (columns if line[:1] in "│┃┏┡└╭╰" else 4000), line[:200]


def test_no_verb_lets_data_steer_the_terminal(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("MLLMREC_CACHE", str(hostile / "c.sqlite"))
    monkeypatch.setenv("COLUMNS", "80")
    said = ""
    for words in (
        ["prepare", "=[red]shop", "--out", "d", "--k-core", "2"],
        ["run", "d", "--out", "r", "--set", "train.epochs=1"],
        ["show", "r", "--users", "8", "--items", "8"],
        ["show", "r", "--user", IDS[0], "--item", IDS[4]],
        ["inspect", "profiles", "r", "--users", "8"],
        ["inspect", "graph", "r", "--item", IDS[1]],
        ["export", "r", "--format", "card", "--out", "card"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        harmless(done.output)
        said += done.output
    assert "[bold red]x[/]" in said
    card = (hostile / "card" / "README.md").read_text()
    assert r"\[red\]shop" in card
    harmless(card)


def test_errors_and_warnings_are_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("\n".join(TEXTS))
    console.err.print(console.plain(console.one_line(" ".join(TEXTS))), soft_wrap=True)
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 2
    harmless(printed)


def test_json_has_no_numbers_that_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [float("nan"), 1.5], "b": {"c": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": None}}


def test_a_csv_runs_nothing_in_a_spreadsheet(tmp_path: Path) -> None:
    assert [escape_formula(text) for text in ("=1", "+1", "-1", "@x", "\tx", "x=1")] == [
        "'=1",
        "'+1",
        "'-1",
        "'@x",
        "'\tx",
        "x=1",
    ]
    case = Result("op", "mllmrec", "=cmd|' /C calc'!A0", "seconds", -1.0, -1.0, -1.0, 1, "m", "v", "c")
    append(tmp_path / "r.csv", [case])
    assert "'=cmd" in (tmp_path / "r.csv").read_text()
