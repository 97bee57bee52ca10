"""bench, scale and plots as a user meets them, and the benches' refusal to report on red tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result as Said
from mllmrec_bench.embeddings import isotropic
from mllmrec_bench.results import read
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.config import GraphConfig, load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import MllmrecError
from mllmrec.features.encode import Cuts, Features
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.runs import open_run

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--items", "80", "--users", "60", "--interactions", "500", "--rounds", "2", "--threads", "1", "--quiet")


def mllmrec(*words: object) -> Said:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


@pytest.fixture
def features(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", isotropic(70, 16))
    return tmp_path / "rows.npy"


@pytest.mark.parametrize("verb", ["bench", "scale", "plots"])
def test_help_fits_eighty_columns_and_ends_with_an_example(verb: str) -> None:
    done = mllmrec(verb, "--help")
    assert done.exit_code == 0
    assert all(len(row) <= 80 for row in done.stdout.splitlines())
    assert f"Example: mllmrec {verb}" in done.stdout


def test_bench_prints_a_table_with_ratios_and_names_missing_peers(
    features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mllmrec_bench.bench.is_installed", lambda module: module in ("torch", "scipy"))
    done = mllmrec("bench", "topk_cosine", "--features", features, *SMALL[:-1])
    assert done.exit_code == 0, done.output
    assert "torch matmul + topk *" in done.stdout
    assert "strongest peer: torch matmul + topk takes" in done.stdout
    assert "faiss IndexFlatIP is not installed, and left out: pip install 'mllmrec[bench]'" in done.stdout


def test_bench_writes_json_and_the_csv(features: Path, tmp_path: Path) -> None:
    csv = tmp_path / "r.csv"
    done = mllmrec("bench", "sample_negatives", "--features", features, "--json", "--csv", csv, *SMALL[:-1])
    assert done.exit_code == 0, done.output
    said, kept = json.loads(done.stdout), read(csv)
    assert [(one["backend"], one["metric"]) for one in said] == [(one.backend, one.metric) for one in kept]
    assert {one["metric"] for one in said} >= {"seconds", "times mllmrec"}
    assert all(one["median"] > 0 for one in said if one["metric"] == "seconds")


def test_bench_takes_the_users_own_data(dataset: Dataset, tmp_path: Path) -> None:
    for op in ("cooccurrence_topk", "rank_heldout"):
        done = mllmrec("bench", op, "--dataset", dataset.folder, "--csv", tmp_path / "r.csv", *SMALL)
        assert done.exit_code == 0, done.output
    cases = {line.case for line in read(tmp_path / "r.csv")}
    assert any(f"U={dataset.n_users} I={dataset.n_items} nnz={dataset.train.nnz}" in case for case in cases)


def unfinished_run(dataset: Dataset, folder: Path) -> Path:
    """A run that has got as far as its graph."""
    vectors = isotropic(dataset.n_items, 16)
    features = Features(vectors, isotropic(dataset.n_users, 16), dataset.train_digest, Cuts(0, 0, 0, 0))
    with open_run(folder, dataset, load_config(), "mllmrec run dataset --out run") as run:
        run.step("encode", {}, Features.load, lambda _: features)
        run.step("graph", {}, ItemGraph.load, lambda _: build_graph(vectors, dataset.histories(), GraphConfig()))
    return folder


def test_bench_takes_a_runs_vectors_and_graph(dataset: Dataset, tmp_path: Path) -> None:
    run = unfinished_run(dataset, tmp_path / "run")
    done = mllmrec("bench", "propagate", "--run", run, "--csv", tmp_path / "r.csv", *SMALL)
    assert done.exit_code == 0, done.output
    assert f"{dataset.name} (a run) N={dataset.n_items} edges=" in read(tmp_path / "r.csv")[0].case
    assert "has not finished 'train'" in str(mllmrec("bench", "topk_dot", "--run", run, *SMALL).exception)


def test_faults_are_errors_of_one_line(features: Path, dataset: Dataset, tmp_path: Path) -> None:
    for words, message in (
        (("bench", "topk"), "there is no op 'topk'"),
        (("bench", "--features", features, "--dataset", dataset.folder), "exclude each other"),
        (("bench", "topk_cosine", "--features", features, "--threads", "4096"), "threads must lie in"),
        (("scale", "--out", tmp_path / "s", "--smallest", "500", "--largest", "100"), "smallest <= largest"),
        (("plots", tmp_path / "none.csv", "--out", tmp_path), "none.csv is missing"),
    ):
        done = mllmrec(*words)
        assert isinstance(done.exception, MllmrecError), done.output
        assert message in str(done.exception) and "\n" not in str(done.exception)


def test_scale_measures_draws_and_goes_on(features: Path, tmp_path: Path) -> None:
    words = ("scale", "--out", tmp_path / "s", "--features", features, "--smallest", "60", "--largest", "120",
             "--width", "8", "--rounds", "1", "--threads", "1")  # fmt: skip
    done = mllmrec(*words)
    assert done.exit_code == 0, done.output
    assert "time grows as N^" in done.stdout
    assert {file.name for file in (tmp_path / "s").iterdir()} == {"scale.csv", "scale.svg", "scale.png"}
    kept = (tmp_path / "s" / "scale.csv").read_text()
    again = mllmrec(*words, "--json")
    assert (tmp_path / "s" / "scale.csv").read_text() == kept
    assert len(json.loads(again.stdout)["fits"]) == 2
    drawn = mllmrec("plots", tmp_path / "s" / "scale.csv", "--out", tmp_path / "p")
    assert "scale.png" in drawn.stdout


def bench_file(tests: Path, csv: Path) -> subprocess.CompletedProcess[str]:
    words = ["-m", "pytest", "bench/bench_sample_negatives.py", "--benchmark-only", "-o", "python_files=bench_*.py"]
    asked = ["-p", "no:cacheprovider", "--shrink", "0.01", "--op-tests", str(tests), "--results", str(csv)]
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, *words, *asked],
        cwd=ROOT,
        env=outside | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bench_reports_nothing_on_an_op_whose_tests_are_red(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text("def test_planted():\n    assert 1 == 2\n")
    done = bench_file(tmp_path, tmp_path / "r.csv")
    assert done.returncode == 1
    assert "no figure for sample_negatives: test_sample.py is red (1 failed" in done.stdout
    assert not (tmp_path / "r.csv").exists()


def test_a_bench_reports_on_an_op_whose_tests_are_green(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text("def test_planted():\n    assert 1 == 1\n")
    done = bench_file(tmp_path, tmp_path / "r.csv")
    assert done.returncode == 0, done.stdout
    assert re.search(r"sample_negatives: generated .* takes \d+\.\d\d times as long", done.stdout)
    lines = read(tmp_path / "r.csv")
    assert {line.op for line in lines} == {"sample_negatives"}
    assert {line.backend for line in lines} >= {"mllmrec", "Python rejection loop"}
    assert all(line.rounds == 5 for line in lines if line.metric != "extra MiB")
