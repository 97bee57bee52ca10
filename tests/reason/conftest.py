"""Tiny models of five families, built once a session; a shop whose pictures a tiny model can describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reason.tiny_models import build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by family."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder
