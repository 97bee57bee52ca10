"""Every --help as it is printed in eighty columns, and what the shell completes.

After a change of verbs or options, `make snapshots` writes the pages anew; look at the difference before committing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from mllmrec_cli.main import app
from rich.text import Text
from syrupy.assertion import SnapshotAssertion
from typer.main import get_command
from typer.testing import CliRunner


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb and group, as the words that name it."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from pages(inner, (*path, name))


PAGES = list(pages(get_command(app)))
VERBS = [path for path in PAGES if not any(other[: len(path)] == path and other != path for other in PAGES)]


def page(path: tuple[str, ...], columns: int = 80) -> str:
    done = CliRunner().invoke(app, [*path, "--help"], prog_name="mllmrec", env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    lines = Text.from_ansi(done.output).plain.splitlines()
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: " ".join(path) or "mllmrec")
def test_every_help_page_is_as_it_was_looked_at(path: tuple[str, ...], snapshot: SnapshotAssertion) -> None:
    assert page(path) == snapshot


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_has_an_example_and_fits_the_terminal(path: tuple[str, ...]) -> None:
    said = page(path)
    assert f"Example: mllmrec {' '.join(path)}" in said
    assert max(map(len, said.splitlines())) <= 80
    assert max(map(len, page(path, 50).splitlines())) <= 50


def test_the_first_page_says_what_exit_codes_mean() -> None:
    text = " ".join(page(()).split())
    assert re.search(r"0 done; 1 refused .*; 2 wrong command line; 130 interrupted", text)


def complete(line: str) -> str:
    words = line.split(" ")
    asked = {"_MLLMREC_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "mllmrec_cli"]
    return subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False).stdout


def test_the_shell_completes_verbs_options_and_settings() -> None:
    assert complete("mllmrec comp").split() == ["compare"]
    assert "--retry-failed" in complete("mllmrec run --re").split()
    assert "graph.threshold=" in complete("mllmrec run --set graph.t").split()
