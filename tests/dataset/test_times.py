"""Times of every form: the order that they give, the unit that is stored, and the rows that have none."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.readers.times import TimeForms
from mllmrec.errors import InputError

LAST = PrepareOptions(k_core=0, split="leave-one-out")


def made(folder: Path, times: list[object], options: PrepareOptions = LAST) -> Dataset:
    """Return the dataset of one user whose items "i0", "i1", ... have these times, as a csv file."""
    folder.mkdir()
    rows = "".join(f"u,i{n},{time}\n" for n, time in enumerate(times))
    (folder / "interactions.csv").write_text(f"user,item,timestamp\n{rows}")
    return prepare(folder, folder / "dataset", options)


def test_item(dataset: Dataset) -> str:
    """Return the id of the item that is held out for the test."""
    return str(dataset.item_ids[dataset.interactions.filter(split=2)["item"][0]])


test_item.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("times", "unit", "form"),
    [
        (["1600000000900", "1600000000800", "1600000000100"], "ms", "milliseconds"),
        (["1600000000.9", "1600000000.8", "1600000000.1"], "ms", "seconds"),
        (["1600000000000900", "1600000000000800", "1600000000000100"], "us", "microseconds"),
        (["1600000000000000900", "1600000000000000800", "1600000000000000100"], "ns", "nanoseconds"),
        (["1600000000.000000009", "1600000000.000000008", "1600000000.000000001"], "ns", "seconds"),
        (["20200913122642", "20200913122641", "20200913122640"], "s", "dates as YYYYMMDD..."),
        (["20200913122640900", "20200913122640800", "20200913122640100"], "ms", "dates as YYYYMMDD..."),
        (["20200913122640.9", "20200913122640.8", "20200913122640.1"], "ms", "dates as YYYYMMDD..."),
        (["20201103", "20201030", "20200913"], "s", "dates as YYYYMMDD..."),
        (["20201103.0", "20201030.0", "20200913.0"], "s", "dates as YYYYMMDD..."),
        (["2020-09-13 12:26:40.9", "2020-09-13T12:26:40.8Z", "2020-09-13 12:26:40.1"], "ms", "dates"),
        (["2020-09-13 12:00+00:00", "2020-09-13 13:00+02:00", "2020-09-13 12:00+05:30"], "s", "dates"),
        (["2020/11/3", "2020/10/30", "2020/9/13"], "s", "dates"),
        (["3.11.2020 10:00", "30.10.2020", "13.9.2020 23:59:59"], "s", "dates"),
        (["1.6e9", "1.5e9", "1.4e9"], "s", "seconds"),
        (["3", "2", "1"], "s", "numbers that order rows"),
        (["7000000000003", "7000000000002", "7000000000001"], "s", "numbers that order rows"),
        (["-1.25", "-1.5", "-2"], "ms", "numbers that order rows"),
    ],
)
def test_the_last_item_is_the_latest_at_full_resolution(
    tmp_path: Path, times: list[object], unit: str, form: str
) -> None:
    dataset = made(tmp_path / "s", times)
    assert test_item(dataset) == "i0"
    assert dataset.manifest["read"]["time"] == {"unit": unit, "form": form}


def test_the_stored_time_is_the_moment_that_was_given(tmp_path: Path) -> None:
    moment = 1_600_000_000
    forms = ["2020-09-13 12:26:40", "2020-09-13T14:26:40+02:00", f"{moment}", f"{moment}000", f"{moment}.0"]
    dataset = made(tmp_path / "s", list(forms), PrepareOptions(k_core=0))
    assert dataset.interactions["timestamp"].to_list() == [moment] * 5
    assert any("several forms: 2 in seconds, 1 in milliseconds, 2 in dates" in w for w in dataset.manifest["warnings"])


def test_whole_seconds_stay_seconds_in_every_unit(tmp_path: Path) -> None:
    for n, zeros in enumerate(("", "000", "000000", "000000000")):
        dataset = made(tmp_path / f"s{n}", [f"160000000{d}{zeros}" for d in range(3)])
        assert dataset.interactions["timestamp"].to_list() == [1_600_000_000, 1_600_000_001, 1_600_000_002]


def test_histories_count_in_seconds_whatever_is_stored(tmp_path: Path) -> None:
    dataset = made(tmp_path / "s", ["1600000000900", "1600000001800"], PrepareOptions(k_core=0))
    assert dataset.interactions["timestamp"].to_list() == [1_600_000_000_900, 1_600_000_001_800]
    times = dataset.histories().times
    assert times is not None
    assert times.tolist() == [1_600_000_000, 1_600_000_001]


@pytest.mark.parametrize(
    "junk", ["soon", "2020-13-45", "09/13/2020", "32.01.2020", "1,600", "inf", "9999-12-31", "0x10", "1e400"]
)
def test_one_unreadable_time_leaves_out_its_row_alone(tmp_path: Path, junk: str) -> None:
    dataset = made(tmp_path / "s", [f"160000000{n % 10}" for n in range(60)] + [f'"{junk}"'], PrepareOptions(k_core=0))
    rejected = json.loads((dataset.folder / "rejected.jsonl").read_text())
    assert rejected["where"] == "interactions.csv:62"
    assert f"timestamp is no time, such as 1600000000 or 2020-09-13 12:26:40: '{junk}'" in rejected["reason"]
    assert len(dataset.interactions) == 60


@pytest.mark.parametrize("empty", ["", "NA", "NaN", "null", "None", "-", "\\N"])
def test_an_empty_time_is_no_time(tmp_path: Path, empty: str) -> None:
    dataset = made(tmp_path / "s", ["1600000000", empty], PrepareOptions(k_core=0))
    assert dataset.interactions["timestamp"].to_list() == [None, 1_600_000_000]
    with pytest.raises(InputError, match="leave-one-out needs a time for every interaction, and 1 have none"):
        prepare(tmp_path / "s", tmp_path / "e", LAST)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_dates_of_parquet_keep_their_resolution(tmp_path: Path, unit: str) -> None:
    first = datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)
    times = pl.Series([first + timedelta(milliseconds=n) for n in (800, 700, 600)]).cast(
        pl.Datetime(unit, "Asia/Tokyo")
    )  # type: ignore[arg-type]
    pl.DataFrame({"user": ["u"] * 3, "item": ["i0", "i1", "i2"], "timestamp": times}).write_parquet(
        tmp_path / "interactions.parquet"
    )
    dataset = prepare(tmp_path, tmp_path / "d", LAST)
    assert test_item(dataset) == "i0"
    assert dataset.interactions["timestamp"].to_list() == [1_600_000_000_000 + n for n in (600, 700, 800)]


def test_days_of_parquet_are_read_and_other_types_are_refused(tmp_path: Path) -> None:
    table = pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "time": [date(2020, 1, 2), date(2020, 1, 1)]})
    table.write_parquet(tmp_path / "interactions.parquet")
    dataset = prepare(tmp_path, tmp_path / "d", PrepareOptions(k_core=0))
    assert dataset.interactions["timestamp"].to_list() == [1_577_836_800, 1_577_923_200]
    for column, name in (
        (pl.Series([1, 2]).cast(pl.Time), "Time"),
        (pl.Series([1, 2]).cast(pl.Duration("ms")), "Duration"),
        (pl.Series([[1], [2]]), "List"),
        (pl.Series([True, False]), "Boolean"),
    ):
        table.with_columns(time=column).write_parquet(tmp_path / "interactions.parquet")
        with pytest.raises(InputError, match=f"the timestamp column 'time' is {name}.*; wanted numbers, or dates"):
            prepare(tmp_path, tmp_path / "e", PrepareOptions(k_core=0))


def test_a_column_of_times_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user,item,time\nu,a,13/09/2020\n")
    with pytest.raises(InputError, match="1 of 1 rows of interactions.csv .* timestamp is no time.*'13/09/2020'"):
        prepare(tmp_path, tmp_path / "d", PrepareOptions(k_core=0))
    dataset = prepare(tmp_path, tmp_path / "d", PrepareOptions(k_core=0, columns={"timestamp": ""}))
    assert dataset.interactions["timestamp"].to_list() == [None]


def test_a_far_date_at_a_fine_resolution_is_no_time() -> None:
    cells, forms = pl.Series(["2300-01-01 00:00:00.000000001", "2020-01-01"]), TimeForms()
    forms.add(cells)
    times = forms.read(cells)
    assert times.values.to_list() == [None, 1_577_836_800_000_000_000]
    assert times.unreadable.to_list() == [True, False]


def test_nobody_is_judged_where_all_times_are_equal(tmp_path: Path) -> None:
    options = PrepareOptions(k_core=0, split="global-time")
    dataset = made(tmp_path / "s", ["1600000000"] * 10, options)
    assert any(
        "the split (global-time) has no validation interaction and no test interaction of a user with training"
        in warning
        for warning in dataset.manifest["warnings"]
    )


def test_times_that_cannot_be_read_say_how_to_go_without(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [f"u{user},p{(user + item) % 6},{item + 1:02d}/28/2021" for user in range(6) for item in range(6)]
    (folder / "interactions.csv").write_text("\n".join(["user,item,date", *rows]) + "\n")
    with pytest.raises(InputError, match=r"'01/28/2021'; correct them, leave times out with --column timestamp="):
        prepare(folder, tmp_path / "d", PrepareOptions(k_core=0))
    made = prepare(folder, tmp_path / "d", PrepareOptions(k_core=0, split="random", columns={"timestamp": ""}))
    assert made.interactions["timestamp"].null_count() == len(made.interactions) == 36
