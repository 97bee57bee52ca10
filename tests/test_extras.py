"""Extras: the absence of a package is one line that names the extra."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from mllmrec import dataset
from mllmrec.errors import ConfigError, require_extra

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())


def test_a_package_that_is_there_passes() -> None:
    require_extra("numpy", "web", "anything")


def test_an_absent_package_is_named_with_its_extra() -> None:
    with pytest.raises(
        ConfigError, match=r"^x needs no_such_package, which is not installed; pip install 'mllmrec\[web\]'$"
    ):
        require_extra("no_such_package", "web", "x")


def test_pictures_cannot_be_downloaded_without_the_http_client(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "httpx" else real(name))
    with pytest.raises(ConfigError, match=r"downloading pictures needs httpx.*mllmrec\[web\]"):
        dataset.ImageDownloader  # noqa: B018 - the access is what is tested


def test_sixteen_dependencies_at_most_and_every_named_extra_exists() -> None:
    assert len(PYPROJECT["project"]["dependencies"]) <= 16
    assert {"web", "card", "vlm"} <= set(PYPROJECT["project"]["optional-dependencies"])
