"""Every command in the README and the guide is run on a small shop, or checked where its block says `# needs:`.

A `sh` block is run line by line in the page's folder; `# exit code N` after a command says that it ends in another code
than 0. No other kind of block may hold a command. Python blocks of the guide are run in tests/test_export.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mllmrec_cli.main import app
from typer.main import get_command
from typer.testing import CliRunner

from mllmrec.config import load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FRESH = ("README", "new-collection", "own-data")  # the pages that make what the others go on from
NEEDS = {"a checkout", "a data set", "a server", "a shell", "minutes", "model weights"}
OURS = ("mllmrec ", "make ")


@dataclass(frozen=True)
class Command:
    line: str
    needs: str
    exit_code: int = 0

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.line)
        return words[1 : words.index(">")] if ">" in words else words[1:]


def blocks(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The fenced blocks of a page: kind, and lines with continuations joined."""
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        yield kind, [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines()]


def files(page: Path) -> list[tuple[str, str]]:
    """The files that a page shows: a line with a path and a colon, and a block with the content."""
    return re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[Command]:
    for kind, lines in blocks(page):
        if kind != "sh":
            assert not [line for line in lines if line.startswith(OURS)], f"{page.name}: commands belong into sh blocks"
            continue
        needs = lines[0].removeprefix("# needs: ") if lines[0].startswith("# needs: ") else ""
        assert needs in NEEDS | {""}, f"{page.name}: {needs!r} is none of {sorted(NEEDS)}"
        for line in lines:
            line, _, said = line.partition(" #")
            if line.startswith(OURS):
                code = re.match(r" exit code (\d)", said)
                yield Command(line.strip(), needs, int(code[1]) if code else 0)


def check(command: Command) -> None:
    """The verb, its options and its settings exist."""
    if command.line.startswith("make "):
        assert re.search(rf"^{command.words[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command.line
        return
    words, parser = command.words, get_command(app)
    while (inner := getattr(parser, "commands", None)) and not words[0].startswith("-"):
        assert words[0] in inner, command.line
        parser, words = inner[words[0]], words[1:]
    if inner:
        assert words[0] in {name for parameter in parser.params for name in parameter.opts}, command.line
        return
    context: Any = parser.make_context("mllmrec", list(words))  # raises where an option or a value is none
    load_config(None, context.params.get("assignments") or [])


@pytest.fixture(scope="module")
def started(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the guide's first page makes: shop, dataset, run."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(shop, folder / "shop")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_every_page_run(page: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(commands(page))
    for command in found:
        check(command)
    monkeypatch.setenv("MLLMREC_CACHE", str(started / "c.sqlite"))
    monkeypatch.setenv("MLLMREC_TRAIN__EPOCHS", "2")
    monkeypatch.setenv("MLLMREC_ENCODE__MAX_PIECES", "32")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(started)
    todo = [command for command in found if not command.needs]
    if todo and page.stem not in FRESH and not Path("run").exists():
        todo = [*first_steps(), *todo]
    if page.stem in FRESH:
        shutil.rmtree("dataset", ignore_errors=True)
    for path, text in files(page):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
    for command in todo:
        done = CliRunner().invoke(app, command.words, prog_name="mllmrec")
        if isinstance(done.exception, Exception):
            raise AssertionError(f"{command.line}: {done.exception}") from done.exception
        assert done.exit_code == command.exit_code, f"{command.line}: {done.output}"
        if ">" in command.line:
            Path(command.line.split(">")[1].strip()).write_text(done.stdout)


def first_steps() -> list[Command]:
    return [Command("mllmrec prepare shop --out dataset", ""), Command("mllmrec run dataset --out run", "")]


def test_a_command_that_does_not_exist_is_found() -> None:
    for line in ("mllmrec report-all run", "mllmrec run dataset", "mllmrec show run --userz 3", "make everything"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whichever the parser has for it
            check(Command(line, ""))
    with pytest.raises(Exception, match="did you mean"):
        check(Command("mllmrec run dataset --out run --set graph.treshold=1", "a server"))
