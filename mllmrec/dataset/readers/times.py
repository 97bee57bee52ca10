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

from collections import Counter
from dataclasses import dataclass

import polars as pl

from mllmrec.dataset.readers.source import TimeUnit
from mllmrec.dataset.readers.values import without_missing

PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")  # the coarsest first
_SECONDS_BELOW = 10**11  # in seconds, the year 5138; larger numbers count in smaller units
_FIRST_UNIX_SECOND = 10**8  # of 1973; lower numbers only order rows
_LIFETIME = (631_152_000, 4_102_444_800)  # seconds from 1990 to 2100
_FORMS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_NUMBER = r"^([+-]?\d{1,19})(?:\.(\d*))?$"
_PLAIN = r"^\d{1,18}$"
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


class TimeForms:
    """Tell the form of a shop's times from all of their cells, and read them by it. Cells may come in pieces."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._steps: Counter[int] = Counter()
        self._finest: Counter[str] = Counter()  # the finest unit that each way to read the numbers would need

    def add(self, cells: pl.Series) -> None:
        """Count the forms of some cells."""
        given = without_missing(cells)
        numbers, dates = _numbers(given), _dates(given)
        digits = given.str.contains(_DIGITS).fill_null(value=False)
        scaled = _scaled(numbers)
        fine = scaled.filter((pl.col("step") > 0) & _SECOND.is_not_null())
        self._counts += Counter(
            whole=numbers["whole"].count(),
            digits=int(digits.sum()),
            dates=dates["second"].count(),
            unix=int((numbers["whole"].abs() >= _FIRST_UNIX_SECOND).sum()),
            fine=len(fine),
            alive=len(fine.filter(_SECOND.is_between(*_LIFETIME, closed="left"))),
        )
        self._steps += Counter(dict(scaled.filter(_SECOND.is_not_null())["step"].value_counts().iter_rows()))
        ways = {"order": _in_order(numbers), "scaled": scaled, "dates": dates}
        if digits.any():
            ways["digits"] = _digits(given.set(~digits, None))
        for way, parts in ways.items():
            self._finest[way] = max(self._finest[way], _finest(parts))

    @property
    def _way(self) -> str:
        counts = self._counts
        if counts["digits"] * 2 > counts["whole"]:
            return "digits"
        return "order" if not counts["unix"] or counts["fine"] > 2 * counts["alive"] else "scaled"

    @property
    def unit(self) -> TimeUnit:
        """Return the coarsest unit that keeps every difference."""
        return _UNITS[max(self._finest[self._way], self._finest["dates"])]

    @property
    def form(self) -> str:
        """Return the forms that were recognised, in words."""
        counts = self._counts
        numbers = {
            "digits": {"dates as YYYYMMDD...": counts["digits"]},
            "order": {"numbers that order rows": counts["whole"]},
            "scaled": {form: self._steps[n] for n, form in enumerate(_FORMS)},
        }[self._way]
        named = [(form, count) for form, count in (numbers | {"dates": counts["dates"]}).items() if count]
        return ", ".join(f"{count:,} in {form}" for form, count in named) if len(named) > 1 else "".join(dict(named))

    def read(self, cells: pl.Series) -> Times:
        """Return the times of some of the cells that were counted."""
        given, way = without_missing(cells), self._way
        if way == "digits":
            digits = given.str.contains(_DIGITS).fill_null(value=False)
            parts = _digits(given.set(~digits, None))
        else:
            parts = _scaled(_numbers(given)) if way == "scaled" else _in_order(_numbers(given))
        dates = _dates(given)
        is_number = parts["second"].is_not_null()
        both = pl.DataFrame({name: parts[name].zip_with(is_number, dates[name]) for name in ("second", "nano")})
        values = _integers(both, self.unit)
        return Times(values, values.is_null() & given.is_not_null(), self.unit, self.form)


def _numbers(given: pl.Series) -> pl.DataFrame:
    """Return whole (Int64) and nano (Int64: the fraction in billionths, never negative) of numbers."""
    if given.str.contains(_PLAIN).all():
        return pl.DataFrame({"whole": given.cast(pl.Int64)}).with_columns(nano=pl.lit(0, pl.Int64))
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


def _in_order(numbers: pl.DataFrame) -> pl.DataFrame:
    """Return numbers that only order rows, as second and nano."""
    return numbers.select(second="whole", nano="nano")


def _scaled(numbers: pl.DataFrame) -> pl.DataFrame:
    """Return step, second and nano of numbers, each in the unit that its size tells."""
    size = pl.col("whole").abs()
    step = sum(((size >= _SECONDS_BELOW * 10**power).cast(pl.Int64) for power in (0, 3, 6)), start=pl.lit(0))
    frame = numbers.with_columns(step=step)
    scale = pl.lit(10, pl.Int64).pow(3 * pl.col("step"))
    second = pl.col("whole") // scale
    rest = (pl.col("whole") - second * scale) * (10**9 // scale) + _NANO // scale
    return frame.select("step", second=second, nano=rest)


def _digits(given: pl.Series) -> pl.DataFrame:
    digits = given.str.extract(r"^(\d+)").str.pad_end(17, "0")
    second = digits.str.slice(0, 14).str.to_datetime("%Y%m%d%H%M%S", strict=False).dt.epoch("s")
    nano = digits.str.slice(14, 3).cast(pl.Int64) * 10**6
    nano += given.str.extract(r"\.(\d+)").str.slice(0, 9).str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    return pl.DataFrame({"second": second, "nano": nano.fill_null(0)})


def _dates(given: pl.Series) -> pl.DataFrame:
    if not given.str.contains(r"[-/.]").any():
        return pl.DataFrame({"second": None, "nano": pl.zeros(len(given), pl.Int64, eager=True)}).cast(pl.Int64)
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


def _finest(parts: pl.DataFrame) -> int:
    """Return the place among _UNITS of the coarsest unit that keeps every nano."""
    nanos = parts.filter(_SECOND.is_not_null() & (_NANO != 0))["nano"]
    return next(n for n, unit in enumerate(_UNITS) if not (nanos % (10**9 // PER_SECOND[unit]) != 0).any())


def _integers(parts: pl.DataFrame, unit: TimeUnit) -> pl.Series:
    per = PER_SECOND[unit]
    held = _SECOND.abs() < (2**63 // per - 1)  # in 64 bits
    values = parts.select(pl.when(held).then(_SECOND * per + _NANO // (10**9 // per)).alias("timestamp"))
    return values["timestamp"]
