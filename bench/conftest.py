"""What the benches share: data, the gate before an op (its tests are green), and the comparison itself.

A bench compares one case. pytest-benchmark times mllmrec's call; before each of its rounds every peer has had its
turn, timed as well, so all methods run in turn in one process, with one number of threads. What was measured is
appended to one long CSV.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_bench import interactions, results
from mllmrec_bench.bench import OPS, Measured, measured, methods
from mllmrec_bench.datasets import dataset_vectors, demo_vectors
from mllmrec_bench.embeddings import enlarge
from mllmrec_bench.peers import Case
from mllmrec_bench.peers.case import INSTALL
from mllmrec_bench.timing import PAUSE, Quantiles, Race, Timed, misjudged_blas, threads, usable_cores
from mllmrec_kernels import CSR
from pytest_benchmark.fixture import BenchmarkFixture

from mllmrec.dataset import PrepareOptions, prepare

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"
ROUNDS = 5
GATES = {op.name: op.tests for op in OPS} | {
    "rank_mixed": "test_mixed.py",
    "topk_mixed": "test_mixed.py",
    "train": "../training/test_train.py",
}  # beside the ops' tests
LEFT_OUT: dict[str, str] = {}
REPORT: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, default=ROOT / "bench" / "results.csv", help="CSV to append to")
    parser.addoption("--op-tests", type=Path, default=ROOT / "tests" / "kernels", help="where the ops' tests lie")
    parser.addoption("--shrink", type=float, default=1.0, help="multiply the generated sizes, to try a bench out")


@cache
def complaint(file: Path) -> str:
    """Why nothing may be reported on an op with these tests; empty if they pass. Run once a session."""
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1].strip("= ")
    return f"{file.name} is red ({last}); mend it first: python -m pytest {file}"


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare a case, after its op's tests have passed; where that takes minutes, in fewer rounds."""

    def run(case: Case, rounds: int = ROUNDS) -> None:
        if reason := complaint(request.config.getoption("--op-tests") / GATES[case.op]):
            pytest.fail(f"no figure for {case.op}: {reason}", pytrace=False)
        benchmark.group = f"{case.op}: {case.name}"
        runners, absent = methods(case)
        LEFT_OUT.update({peer.name: INSTALL for peer in absent})
        ours, *others = runners

        def everybody_else() -> None:
            for other in others:
                race.turn(other)
            time.sleep(PAUSE)

        with threads(usable_cores()):
            race = Race(runners)
            if others:  # without them, the run that shows the memory warms up
                race.warm_up()
            race.measure_memory(ours)
            benchmark.pedantic(lambda: race.record(ours), setup=everybody_else, rounds=rounds, iterations=1)
        done = measured(case, race.timed(), absent)
        results.append(request.config.getoption("--results"), done.results(results.Stamp.now(usable_cores())))
        for other in done.others:
            benchmark.extra_info[other.name] = round(other.slower_than(done.ours).median, 3)
        REPORT.append(sentence(done))

    return run


def sentence(done: Measured) -> str:
    """A case in one line: the strongest peer's time over mllmrec's, and both peaks of memory."""
    strongest, name = done.strongest, f"{done.case.op}: {done.case.name}"
    if not done.case.peers:
        return f"{name}: {Quantiles.of(done.ours.seconds).median:.1f} s, no peer; extra MiB {extra_mib(done.ours)}"
    if strongest is None:
        return f"{name}: no peer is installed"
    times = strongest.slower_than(done.ours)
    return (
        f"{name}: {strongest.name} takes {times.median:.2f} times as long "
        f"({times.p20:.2f}-{times.p80:.2f}); extra MiB {extra_mib(done.ours)}, theirs {extra_mib(strongest)}"
    )


def extra_mib(timed: Timed) -> str:
    return "?" if timed.extra_bytes is None else f"{timed.extra_bytes / 2**20:.1f}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("mllmrec beside the strongest peer")
    for line in REPORT:
        terminalreporter.write_line(line)
    if doubt := misjudged_blas():
        terminalreporter.write_line(f"no fair comparison: {doubt}")
    for name, install in sorted(LEFT_OUT.items()):
        terminalreporter.write_line(f"{name} is not installed, and left out: {install}")


@pytest.fixture(scope="session")
def sized(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """A generated size, shrunk where the command line asks for it."""
    shrink: float = request.config.getoption("--shrink")
    return lambda n: max(64, round(n * shrink))


@pytest.fixture(scope="session")
def real_vectors(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray | None:
    """all-MiniLM-L6-v2 over the text of 4,344 real products, float32 [4344, 384]; None if they are not here."""
    if not (REAL / "amazon-scientific").is_dir():
        return None
    folder = tmp_path_factory.mktemp("real") / "scientific"
    return dataset_vectors(
        prepare(REAL / "amazon-scientific", folder, PrepareOptions(split="given", split_column="split_random"))
    )


@pytest.fixture(scope="session")
def like_real(real_vectors: np.ndarray | None, sized: Callable[[int], int]) -> Callable[[int], tuple[str, np.ndarray]]:
    """Makes n rows like the real products' or, without them, like the demo shop's, and says what they are called."""
    source = demo_vectors() if real_vectors is None else real_vectors
    name = "generated like demo" if real_vectors is None else "generated like amazon-scientific"
    return lambda n: (name, enlarge(source, sized(n)))


@pytest.fixture(scope="session")
def generated_vectors(like_real: Callable[[int], tuple[str, np.ndarray]]) -> tuple[str, np.ndarray]:
    """50,000 of them."""
    return like_real(50_000)


@pytest.fixture(scope="session")
def shop(sized: Callable[[int], int]) -> CSR:
    """As many users, items and interactions as Amazon Baby has."""
    return interactions.interactions(sized(19_445), sized(7_050), sized(160_792))


@pytest.fixture(scope="session")
def amazon_baby() -> CSR:
    """The training interactions of Amazon Baby; the bench is skipped where they are not here."""
    if not (REAL / "amazon-baby").is_dir():
        pytest.skip("amazon-baby is not here")
    rows = pl.read_parquet(REAL / "amazon-baby" / "interactions.parquet").filter(pl.col("split") == "train")
    users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
    return CSR.from_pairs(users, items, (int(users.max()) + 1, int(items.max()) + 1))
