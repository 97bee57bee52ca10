"""Settings of runs whose texts a tiny chat model writes, and what such a run has left on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl

from mllmrec.config import Config, load_config

Tiny = Callable[[str], Path]


def settings(model: Path, *more: str) -> list[str]:
    return [
        "describe.engine=transformers",
        f"describe.model={model}",
        "describe.max_new_tokens=10",
        "describe.max_failures=1.0",
        "describe.retries=0",
        "profile.engine=transformers",
        "profile.max_new_tokens=10",
        "profile.max_failures=1.0",
        "profile.max_tokens=400",
        "profile.item_tokens=128",
        "profile.template=preferences",
        "profile.retries=0",
        "transformers.device=cpu",
        "transformers.batch_size=4",
        "transformers.repetition_penalty=1.5",
        "train.epochs=2",
        *more,
    ]


def config(model: Path, *more: str) -> Config:
    return load_config(None, settings(model, *more))


def tables(folder: Path) -> list[pl.DataFrame]:
    return [
        pl.read_parquet(folder / "run" / name) for name in ("describe/descriptions.parquet", "profile/profiles.parquet")
    ]


def held(folder: Path) -> int:
    if not (folder / "c.sqlite").exists():
        return 0
    try:
        connection = sqlite3.connect(f"file:{folder / 'c.sqlite'}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT COUNT(*) FROM generations").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0  # the file is there, its table not yet
