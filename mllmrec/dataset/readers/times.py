"""Read times of any common form at their full resolution, and choose the coarsest unit that keeps it.

| form | example |
|---|---|
| seconds, milli-, micro-, nanoseconds since 1970 | `1600000000`, `1600000000.25`, `1600000000800` |
| digits of a date | `20200913`, `202009131226`, `20200913122640`, `20200913122640800` |
| dates, with or without the time of day | `2020-09-13`, `2020-09-13T12:26:40.8+02:00`, `13.09.2020 12:26` |
| numbers that only order rows | `1`, `2`, `3` |

The size of a number tells its unit. Numbers whose dates would be of no shop's lifetime only order rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from mllmrec.dataset.readers.source import TimeUnit
from mllmrec.dataset.readers.values import without_missing

PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SECONDS_BELOW = 10**11  # in seconds, the year 5138; larger numbers count in smaller units
_FIRST_UNIX_SECOND = 10**8  # of 1973; lower numbers only order rows
_LIFETIME = (631_152_000, 4_102_444_800)  # seconds from 1990 to 2100
_FORMS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_NUMBER = r"^([+-]?\d{1,19})(?:\.(\d*))?$"
_EXPONENT = r"^[+-]?\d+(?:\.\d*)?[eE][+-]?\d+$"
_DIGITS = r"^(?:19|20)\d{6}(?:(?:\d{4}|\d{9})?(?:\.0*)?|\d{6}(?:\.\d*)?)$"
_DATE = (
    r"^(?:(?<date>\d{4}[-/]\d{1,2}[-/]\d{1,2})|(?<dotted>\d{1,2}\.\d{1,2}\.\d{4}))"
    r"(?:[T ]+(?<minute>\d{1,2}:\d{2})(?::(?<second>\d{2})(?:[.,](?<fraction>\d{1,9})\d*)?)?)?"
    r"\s*(?:Z|UTC|GMT|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?)?$"
)
_SECOND, _NANO = pl.col("second"), pl.col("nano")


@dataclass(frozen=True)
class Times:
    """Hold times as integers.

    Attributes:
        values: Int64, in `unit` since 1970, or numbers that only order rows; null if a cell is empty or unreadable.
        unreadable: Boolean, true where a cell holds something else.
        unit: the coarsest that keeps every difference.
        form: the forms that were recognised, in words.
    """

    values: pl.Series
    unreadable: pl.Series
    unit: TimeUnit
    form: str


def read_times(cells: pl.Series) -> Times:
    """Read the times of text cells, all rows of a shop together."""
    given = without_missing(cells)
    numbers, dates = _numbers(given), _dates(given)
    forms: dict[str, int] = {}
    if (digits := given.str.contains(_DIGITS).fill_null(value=False)).sum() * 2 > numbers["whole"].count():
        parts, forms["dates as YYYYMMDD..."] = _digits(given.set(~digits, None)), int(digits.sum())
    else:
        parts = _scaled(numbers, forms)
    forms["dates"] = dates["second"].count()
    is_number = parts["second"].is_not_null()
    both = pl.DataFrame({name: parts[name].zip_with(is_number, dates[name]) for name in parts.columns})
    values, unit = _integers(both)
    named = [(form, count) for form, count in forms.items() if count]
    words = ", ".join(f"{count:,} in {form}" for form, count in named) if len(named) > 1 else "".join(dict(named))
    return Times(values, values.is_null() & given.is_not_null(), unit, words)


def _numbers(given: pl.Series) -> pl.DataFrame:
    """Return whole (Int64) and nano (Int64: the fraction in billionths, never negative) of numbers."""
    whole = given.str.extract(_NUMBER, 1).cast(pl.Int64, strict=False)
    nano = given.str.extract(_NUMBER, 2).str.slice(0, 9).str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    large = given.set(~given.str.contains(_EXPONENT).fill_null(value=False), None).cast(pl.Float64, strict=False)
    large = large.set(~(large.abs() < 9e18).fill_null(value=False), None)
    frame = pl.DataFrame({"whole": whole, "nano": nano, "large": large})
    below = given.str.starts_with("-").fill_null(value=False) & (nano > 0)
    floor = pl.col("large").floor()
    return frame.select(
        whole=pl.when(below).then(pl.col("whole") - 1).otherwise(pl.coalesce("whole", floor.cast(pl.Int64))),
        nano=pl.when(below)
        .then(10**9 - _NANO)
        .when(pl.col("whole").is_null() & pl.col("large").is_not_null())
        .then(((pl.col("large") - floor) * 1e9).cast(pl.Int64))
        .otherwise(_NANO),
    )


def _scaled(numbers: pl.DataFrame, forms: dict[str, int]) -> pl.DataFrame:
    """Return second and nano of numbers, each in the unit that its size tells."""
    size = pl.col("whole").abs()
    step = sum(((size >= _SECONDS_BELOW * 10**power).cast(pl.Int64) for power in (0, 3, 6)), start=pl.lit(0))
    frame = numbers.with_columns(step=step)
    scale = pl.lit(10, pl.Int64).pow(3 * pl.col("step"))
    second = pl.col("whole") // scale
    rest = (pl.col("whole") - second * scale) * (10**9 // scale) + _NANO // scale
    scaled = frame.select("step", second=second, nano=rest)
    fine = scaled.filter((pl.col("step") > 0) & _SECOND.is_not_null())
    alive = fine.filter(_SECOND.is_between(*_LIFETIME, closed="left"))
    is_order = not (numbers["whole"].abs() >= _FIRST_UNIX_SECOND).any()
    if is_order or len(fine) > 2 * len(alive):
        forms["numbers that order rows"] = numbers["whole"].count()
        return numbers.select(second="whole", nano="nano")
    counts = dict(scaled.filter(_SECOND.is_not_null())["step"].value_counts().iter_rows())
    forms.update({form: counts.get(n, 0) for n, form in enumerate(_FORMS)})
    return scaled.select("second", "nano")


def _digits(given: pl.Series) -> pl.DataFrame:
    digits = given.str.extract(r"^(\d+)").str.pad_end(17, "0")
    second = digits.str.slice(0, 14).str.to_datetime("%Y%m%d%H%M%S", strict=False).dt.epoch("s")
    nano = digits.str.slice(14, 3).cast(pl.Int64) * 10**6
    nano += given.str.extract(r"\.(\d+)").str.slice(0, 9).str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    return pl.DataFrame({"second": second, "nano": nano.fill_null(0)})


def _dates(given: pl.Series) -> pl.DataFrame:
    groups = given.str.extract_groups(_DATE).struct.unnest()
    clock = pl.format(
        "{} {}:{}",
        pl.coalesce(
            pl.col("date").str.replace_all("/", "-"),
            pl.col("dotted").str.replace(r"(\d+)\.(\d+)\.(\d+)", "${3}-${2}-${1}"),
        ),
        pl.col("minute").fill_null("00:00"),
        pl.col("second").fill_null("00"),
    )
    minutes = pl.col("hours").cast(pl.Int64) * 60 + pl.col("minutes").cast(pl.Int64).fill_null(0)
    offset = (pl.when(pl.col("sign") == "-").then(-minutes).otherwise(minutes) * 60).fill_null(0)
    second = clock.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("s") - offset
    return groups.select(
        second=pl.when(second < _SECONDS_BELOW).then(second),  # a year above 5138 stands for "never"
        nano=pl.col("fraction").str.pad_end(9, "0").cast(pl.Int64).fill_null(0),
    )


def _integers(parts: pl.DataFrame) -> tuple[pl.Series, TimeUnit]:
    nanos = parts.filter(_SECOND.is_not_null() & (_NANO != 0))["nano"]
    unit = next(unit for unit, per in PER_SECOND.items() if not (nanos % (10**9 // per) != 0).any())
    per = PER_SECOND[unit]
    held = _SECOND.abs() < (2**63 // per - 1)  # in 64 bits
    values = parts.select(pl.when(held).then(_SECOND * per + _NANO // (10**9 // per)).alias("timestamp"))
    return values["timestamp"], unit
