"""Compare two run folders file by file: equal, renamed or different.

    python bench/compare_runs.py OLD NEW [--rename OLD=NEW ...]

A file is "equal" where its bytes are. It is "renamed" where its content is equal once names are mapped: of files, of
models in tables, of settings. Anything else "differs". A file of one run alone is "missing" or "added". Exit code 1
where anything differs, is missing or is added. Times, memory, versions and the machine are not compared, and neither
are stage.json, whose fingerprints follow from the settings and files that are, and curve.svg, a picture of curve.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.foundation.digests import hash_file

FILES = {"train/blend.json": "train/ensemble.json", "train/blend.LEAKY.json": "train/ensemble.LEAKY.json"}
NAMES = {  # of models, parts and settings
    "graph.semantic_neighbours": "graph.semantic_neighbors",
    "graph.cooccurrence_neighbours": "graph.cooccurrence_neighbors",
    "transformers.quantise": "transformers.quantize",
    "blend": "ensemble",
    "blend (LEAKY)": "ensemble (LEAKY)",
    "low-pass": "graph filter",
    "model.neighbours": "model.n_neighbors",
    "model.rank": "model.factors",
    "model.regularisation": "model.regularization",
    "model.shrinkage": "model.regularization",
    "model.sweeps": "model.iterations",
    "model.unobserved": "model.unobserved_weight",
}
UNCOMPARED = {"stage.json", ".lock", "curve.svg"}  # curve.svg is drawn from curve.csv, which is compared
# What run.json says of the machine and the clock, not of the result.
UNCOMPARED_KEYS = {"seconds", "peak_mib", "reused", "versions", "machine", "command", "dataset_folder", "counts"}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="run folder of the earlier version")
    parser.add_argument("new", type=Path, help="run folder of the later version")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="one more renamed name")
    options = parser.parse_args(arguments)
    names = NAMES | dict(pair.split("=", 1) for pair in options.rename)
    rows = list(compare(options.old, options.new, names))
    width = max((len(name) for name, _ in rows), default=0)
    for name, verdict in rows:
        print(f"{name:{width}}  {verdict}")
    counts = Counter(verdict.partition(":")[0] for _, verdict in rows)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no files")
    return 0 if rows and set(counts) <= {"equal", "renamed"} else 1


def compare(old: Path, new: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each file of two runs, by its earlier name, with a verdict."""
    before, after = _files(old), _files(new)
    met = set()
    for name in sorted(before):
        target = name if name in after else FILES.get(name, name)
        met.add(target)
        if target not in after:
            yield name, "missing"
        elif name == target and hash_file(before[name]) == hash_file(after[name]):
            yield name, "equal"
        else:
            yield name, _verdict(before[name], after[target], names) + ("" if name == target else f": {target}")
    for name in sorted(after.keys() - met):
        yield name, "added"


def _files(folder: Path) -> dict[str, Path]:
    """Return every file that is compared, by its path below the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNCOMPARED)
    pages = (".html",)
    return {path.relative_to(folder).as_posix(): path for path in files if path.suffix not in pages}


def _verdict(old: Path, new: Path, names: Mapping[str, str]) -> str:
    """Return "renamed" where two files are equal once names are mapped, else "differs"."""
    read = _READERS.get(old.suffix)
    if read is None or new.suffix != old.suffix:
        return "differs"
    before, after = read(old, names), read(new, {})
    if before == after or (isinstance(before, dict) and _model_settings_apart(before, after)):
        return "renamed"
    return "differs"


def _model_settings_apart(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Return True if two configs differ only in settings of other kinds of model, as earlier configs did."""
    extra = before.keys() - after.keys()
    kept = {key: value for key, value in before.items() if key not in extra}
    return kept == after and all("model." in key for key in extra)


def _read_json(path: Path, names: Mapping[str, str]) -> dict[str, Any]:
    return dict(_flat(json.loads(path.read_text(encoding="utf-8")), names))


def _read_toml(path: Path, names: Mapping[str, str]) -> dict[str, Any]:
    return dict(_flat(tomllib.loads(path.read_text(encoding="utf-8")), names))


def _read_table(path: Path, names: Mapping[str, str]) -> list[Any]:
    table = pl.read_parquet(path)
    table = table.rename({name: names[name] for name in table.columns if name in names})
    if "model" in table.columns:
        table = table.with_columns(pl.col("model").replace(names))
    return [table.columns, table.dtypes, table.rows()]


_READERS: dict[str, Callable[[Path, Mapping[str, str]], Any]] = {
    ".json": _read_json,
    ".toml": _read_toml,
    ".parquet": _read_table,
}


def _flat(value: Any, names: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values by their dotted keys, names mapped; what is not compared is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in UNCOMPARED_KEYS:
                section = prefix.rstrip(".").rpartition(".")[2]
                mapped = names.get(f"{section}.{key}", f"{section}.{key}").rpartition(".")[2]
                yield from _flat(inner, names, f"{prefix}{names.get(mapped, mapped)}.")
    else:
        yield prefix.rstrip("."), _mapped(value, names)


def _mapped(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with names mapped, in a summary such as "1 ridge, 0.4 low-pass; ..." too."""
    if not isinstance(value, str):
        return value
    parts = [part.partition(" ") for part in value.split(", ")]
    return names.get(value) or ", ".join(
        f"{head}{space}{_tail(tail, names)}" if space else names.get(head, head) for head, space, tail in parts
    )


def _tail(text: str, names: Mapping[str, str]) -> str:
    name, semicolon, rest = text.partition(";")
    return f"{names.get(name, name)}{semicolon}{rest}"


if __name__ == "__main__":
    sys.exit(main())
