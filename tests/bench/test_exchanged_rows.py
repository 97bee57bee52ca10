"""Test rows exchanged: no fitted byte changes, and a model that reads them is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bench import exchanged_rows
from bench.exchanged_rows import exchange_test_rows, measure
from mllmrec.dataset import Dataset


def test_other_items_stand_in_test_rows_and_nowhere_else(dataset: Dataset) -> None:
    other, rows = exchange_test_rows(dataset).interactions, dataset.interactions
    of_test = rows["split"].to_numpy() == 2
    changed = rows["item"].to_numpy() != other["item"].to_numpy()
    assert changed[of_test].all() and not changed[~of_test].any()
    assert not other.select("user", "item").is_duplicated().any()
    assert other.drop("item").equals(rows.drop("item"))


def test_three_fits_are_told_apart(dataset: Dataset, vectors: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(dataset, vectors, "ease")
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["as it is", "test rows exchanged", "chosen by test"]
    assert lines["test rows exchanged"].endswith(", the same bytes")
    assert float(lines["test rows exchanged"].split(",")[0]) < 0.75 * float(lines["as it is"])


def test_a_fit_that_reads_test_rows_is_caught(
    dataset: Dataset, vectors: np.ndarray, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exchanged_rows.fit

    def leaky(data: Dataset, *rest: object) -> object:
        trained = pl.when(pl.col("split") == 2).then(0).otherwise("split").cast(data.interactions["split"].dtype)
        return honest(replace(data, interactions=data.interactions.with_columns(trained.alias("split"))), *rest)

    monkeypatch.setattr(exchanged_rows, "fit", leaky)
    assert not measure(dataset, vectors, "ease")
    assert "OTHER bytes" in capsys.readouterr().out
