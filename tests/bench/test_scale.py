"""Exponents come out as they went in; a sweep goes on where it was; pictures come from the CSV alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mllmrec_bench.bench import Settings
from mllmrec_bench.datasets import Source
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.plots import draw
from mllmrec_bench.results import Result, append, read
from mllmrec_bench.scale import Range, curves, fit, fits, sweep

from mllmrec.errors import ConfigError, InputError

SETTINGS = Settings(k=5, threshold=0.3, rounds=2, threads=1)
RANGE = Range(60, 240, 2.0, (16,), SETTINGS)
SOURCE = Source("test", lambda: isotropic(100, 32))


def line(n: int, seconds: float, backend: str = "mllmrec", d: int = 64) -> Result:
    case = f"generated like test N={n:,} d={d} k=10 >=0.7"
    return Result("topk_cosine", backend, case, "seconds", seconds, seconds, seconds, 5, "cpu", "numpy 2", "abc")


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [2_000, 4_000, 8_000, 16_000]
    found = fit(sizes, [3e-9 * n**1.83 for n in sizes])
    assert found is not None
    assert (found.exponent, found.seconds_at_one) == (pytest.approx(1.83), pytest.approx(3e-9))
    noisy = fit(sizes, [3e-9 * n**1.83 * noise for n, noise in zip(sizes, (1.1, 0.9, 1.05, 0.95), strict=True)])
    assert noisy is not None and noisy.exponent == pytest.approx(1.83, abs=0.1)
    assert fit([5, 5], [1, 2]) is None


def test_curves_keep_methods_and_widths_apart() -> None:
    lines = [
        *(line(n, 1e-8 * n**2) for n in (4_000, 1_000, 2_000)),
        *(line(n, 1e-6 * n, backend="faiss") for n in (1_000, 2_000)),
        line(1_000, 9, d=128),
        replace(line(1_000, 9), case="amazon N=1,000 d=64 k=10"),
    ]
    found = curves(lines, "seconds")
    assert [(curve.backend, curve.d, [p.n for p in points]) for curve, points in found.items()] == [
        ("mllmrec", 64, [1_000, 2_000, 4_000]), ("faiss", 64, [1_000, 2_000]), ("mllmrec", 128, [1_000]),
    ]  # fmt: skip
    assert [round(law.exponent, 6) for law in fits(lines).values()] == [2, 1]


def test_sizes_are_geometric_and_an_empty_range_is_refused() -> None:
    assert RANGE.sizes() == (60, 120, 240)
    assert replace(RANGE, largest=1_000_000, smallest=1_000, factor=10).sizes()[-1] == 1_000_000
    for wrong in ({"smallest": 500}, {"factor": 1.0}, {"smallest": 10}):
        with pytest.raises(ConfigError, match="smallest <= largest and factor > 1"):
            replace(RANGE, **wrong).sizes()


def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "scale.csv"
    started = sweep(RANGE, SOURCE, path)
    next(started)
    next(started)  # N=60, both ops; then the process dies
    before = path.read_text()
    done = list(sweep(RANGE, SOURCE, path))
    assert [known for _, known in done] == [True, True, False, False, False, False]
    assert path.read_text().startswith(before)
    whole = path.read_text()
    unread = Source("test", lambda: pytest.fail("nothing is generated where nothing is measured"))
    assert all(known for _, known in sweep(RANGE, unread, path))
    assert path.read_text() == whole
    assert {curve.op for curve in curves(read(path), "seconds")} == {"topk_cosine", "build_graph"}


def test_asking_for_peers_measures_what_is_missing_and_the_wider_range_alone(tmp_path: Path) -> None:
    path = tmp_path / "scale.csv"
    asked = replace(RANGE, largest=60)
    list(sweep(asked, SOURCE, path))
    assert [known for _, known in sweep(replace(asked, compare=True), SOURCE, path)] == [False, True]
    assert "torch matmul + topk" in {result.backend for result in read(path)}
    assert [known for _, known in sweep(replace(asked, largest=120), SOURCE, path)] == [True, True, False, False]
    with pytest.raises(InputError, match="the source has 32 dimensions; cannot make 64"):
        list(sweep(replace(asked, widths=(64,)), SOURCE, path))


def test_pictures_are_drawn_from_the_csv_alone(tmp_path: Path) -> None:
    lines = [line(n, 1e-8 * n**2) for n in (1_000, 2_000)]
    lines += [replace(lines[0], metric="extra MiB", median=3.0, p20=3.0, p80=3.0), replace(lines[0], backend="faiss")]
    lines += [replace(lines[0], backend="faiss", metric="times mllmrec", median=2.0, p20=1.5, p80=2.5)]
    append(tmp_path / "r.csv", lines)
    drawn = draw(read(tmp_path / "r.csv"), tmp_path / "plots")
    assert [file.name for file in drawn] == ["topk_cosine.svg", "topk_cosine.png", "scale.svg", "scale.png"]
    scale = drawn[2].read_text()
    # Text is drawn as shapes, and each piece stands in a comment beside them.
    for said in ("items N", "time of one call (s)", "peak memory beyond input and result (MiB)", "N^2.00", "cpu; abc"):
        assert f"<!-- {said}" in scale or said in scale, said
    bars = drawn[0].read_bytes()
    assert draw(read(tmp_path / "r.csv"), tmp_path / "again")[0].read_bytes() == bars
    assert draw([line(1_000, 1.0)], tmp_path / "none") == []
    assert np.all([file.stat().st_size > 1_000 for file in drawn])
