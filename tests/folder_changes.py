"""Random changes of a run and its dataset: values in JSON, names, links, special files, sizes, columns, bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from mllmrec.foundation import digests, storage


class Mutator:
    """Random changes of a case.

    Args:
        case: the folder with `run` and `dataset`.
        victim: the folder that nobody may touch.
        rng: decides everything.
    """

    def __init__(self, case: Path, victim: Path, rng: random.Random) -> None:
        self._case, self._victim, self._rng = case, victim, rng

    def mutate(self) -> str:
        """Change the case, seal half of the changes anew, and return what was done."""
        done = []
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            change = self._rng.choice((self._json, self._json, self._names, self._link, self._bytes, self._table,
                                       self._array, self._tensors, self._special))  # fmt: skip
            done.append(change())
        if self._rng.random() < 0.5:
            self._seal()
            done.append("sealed")
        return "; ".join(done)

    def _files(self, *endings: str) -> list[Path]:
        files = sorted(path for path in self._case.rglob("*") if _is_small(path))
        return [path for path in files if path.name.endswith(endings or ("",)) and "images" not in path.parts]

    def _json(self) -> str:
        path = self._rng.choice(self._files(".json"))
        try:
            value = json.loads(path.read_text())
        except (ValueError, UnicodeDecodeError):
            return "nothing"
        where = self._change(value)
        path.write_text(json.dumps(value, ensure_ascii=self._rng.random() < 0.9), errors="replace")
        return f"{path.parent.name}/{path.name}: {where}"

    def _change(self, value: Any) -> str:
        """Replace, remove or add one value somewhere inside."""
        names = []
        while True:
            key = self._rng.choice(list(value)) if isinstance(value, dict) else self._rng.randrange(len(value))
            names.append(str(key))
            inner = value[key]
            if isinstance(inner, dict | list) and inner and self._rng.random() < 0.85:
                value = inner
                continue
            kind = self._rng.random()
            if kind < 0.15:
                del value[key]
            elif kind < 0.25 and isinstance(value, dict):
                value[self._name()] = self._value()
            else:
                value[key] = self._value()
            return f"{'.'.join(names)[:60]}"

    def _value(self) -> Any:
        return self._rng.choice(
            (None, True, False, -1, 0, 1, 2**40, 2**70, 1e308, float("nan"), float("inf"), "", "x" * 100_000, "\0",
             "\ud800", "\x1b[2J\x9b", [], {}, [[]], [None], {"a": {"b": []}}, "0" * 64, self._name(), self._name())
        )  # fmt: skip

    def _name(self) -> str:
        away = [path for path in sorted(self._victim.rglob("*")) if path.is_file()]
        path = self._rng.choice(away)
        return self._rng.choice(
            (str(path), f"../../victim/{path.name}", f"../../../victim/{path.name}", "..", ".", "/", "../run.json",
             str(self._victim), f"images/../../../victim/{path.name}", "stage.json", ".lock", "a\0b", "C:\\x", "~/x")
        )  # fmt: skip

    def _names(self) -> str:
        """Name files elsewhere: in a seal, the manifest, the table of pictures or the run's dataset."""
        kind = self._rng.randrange(4)
        if kind == 0:
            path = self._rng.choice(self._files("stage.json") or [self._case / "run" / "run.json"])
            return self._edit(path, lambda value: value.setdefault("outputs", {}).update({self._name(): "0" * 64}))
        if kind == 1:
            path = self._case / "dataset" / "manifest.json"
            return self._edit(path, lambda value: value.setdefault("files", {}).update({self._name(): "0" * 64}))
        if kind == 2:
            path = self._case / "run" / "run.json"
            # A dataset may lie anywhere: a folder with a manifest is looked into wherever it is, and then refused.
            name = self._name()
            place = str(self._victim.parent / "nowhere") if name == str(self._victim) else name
            return self._edit(path, lambda value: value.update(dataset_folder=place))
        path = self._case / "dataset" / "items.parquet"
        try:
            table = pl.read_parquet(path if _is_small(path) else self._case / "missing")
        except Exception:
            return "nothing"
        table.with_columns(images=pl.lit([self._name()], pl.List(pl.String))).write_parquet(path)
        self._seal()
        return "names of pictures, sealed"

    def _edit(self, path: Path, edit: Callable[[Any], None]) -> str:
        try:
            if not _is_small(path):
                return "nothing"
            value = json.loads(path.read_text())
            edit(value)
        except (ValueError, AttributeError, OSError):
            return "nothing"
        path.write_text(json.dumps(value))
        return f"{path.parent.name}/{path.name}: a name"

    def _link(self) -> str:
        """Put a link in place of a file or folder, or plant one under a name that is written or locked.

        The dataset's own folder stays: it may lie anywhere, behind a link too, and is then checked where it lies.
        """
        planted = [
            ".lock", ".run.json.tmp", "report.html", "inspect", "config.toml", "run.json", "train/.stage.json.tmp",
            "train/.unfinished-0000000000000000", "encode/parts", "train", "encode", "recommend", ".mllmrec-0.tmp",
            "../dataset/.lock", "../dataset/images", "../dataset/features",
        ]  # fmt: skip
        files = [os.path.relpath(path, self._case / "run") for path in self._files()]
        name = self._rng.choice([*planted, *files])
        path = self._case / "run" / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        if not path.parent.is_dir():
            return "nothing"
        target = self._rng.choice((self._victim, self._victim / "secret.txt", self._victim / "secret.png"))
        path.symlink_to(target, target_is_directory=target.is_dir())
        return f"link {name} -> {target.name}"

    def _bytes(self) -> str:
        path = self._rng.choice(self._files())
        data = bytearray(path.read_bytes())
        kind = self._rng.randrange(4)
        if kind == 0:
            data = data[: self._rng.randrange(len(data) + 1)]
        elif kind == 1 and data:
            for _ in range(self._rng.randrange(1, 8)):
                data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        elif kind == 2:
            data = bytearray(self._rng.randbytes(self._rng.randrange(200)))
        else:
            data = data + data
        path.write_bytes(data)
        return f"{path.parent.name}/{path.name}: bytes {kind}"

    def _table(self) -> str:
        path = self._rng.choice(self._files(".parquet") or [self._case])
        try:
            table = pl.read_parquet(path)
        except Exception:
            return "nothing"
        if not table.width:
            return "nothing"
        column = self._rng.choice(table.columns)
        changes: tuple[Callable[[], pl.DataFrame], ...] = (
            lambda: table.drop(column),
            lambda: table.rename({column: "other"}),
            lambda: table.with_columns(pl.lit(None).alias(column)),
            lambda: table.with_columns(pl.lit(self._name()).alias(column)),
            lambda: table.with_columns(pl.lit(2**31 - 1, pl.Int32).alias(column)),
            lambda: table.with_columns(pl.lit(-1, pl.Int64).alias(column)),
            lambda: table.with_columns(pl.lit(float("nan")).alias(column)),
            lambda: table.with_columns(pl.lit(["a"]).alias(column)),
            lambda: table.head(len(table) // 2),
            lambda: pl.concat([table, table]),
            lambda: table.sample(fraction=1.0, shuffle=True, seed=1),
            lambda: table.clear(),
            lambda: table.with_columns(pl.col(column).cast(pl.String, strict=False)),
        )
        n = self._rng.randrange(len(changes))
        try:
            changed = changes[n]()
        except pl.exceptions.PolarsError:  # a list has no text
            return "nothing"
        storage.write_table(path, changed, notes=_notes(path) if self._rng.random() < 0.8 else None)
        return f"{path.parent.name}/{path.name}: {column} {n}"

    def _array(self) -> str:
        path = self._rng.choice(self._files(".npy"))
        try:
            array = np.load(path, allow_pickle=False)
        except Exception:
            return "nothing"
        changes: tuple[Callable[[], Any], ...] = (
            lambda: array[:1], lambda: array[:, :0], lambda: array.astype(np.float64), lambda: array.astype("S4"),
            lambda: array.astype(np.complex64), lambda: np.full_like(array, np.nan), lambda: array.reshape(-1),
            lambda: np.concatenate([array, array]), lambda: np.float32(3), lambda: array.astype("M8[s]"),
        )  # fmt: skip
        n = self._rng.randrange(len(changes))
        try:
            np.save(path, changes[n]())
        except (IndexError, TypeError, ValueError, RuntimeError):  # of casts that NumPy does not have
            return "nothing"
        return f"{path.parent.name}/{path.name}: array {n}"

    def _tensors(self) -> str:
        path = self._rng.choice(self._files(".safetensors"))
        try:
            tensors = load_file(path)
            name = self._rng.choice(sorted(tensors))
        except Exception:
            return "nothing"
        kind = self._rng.randrange(5)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[name] = tensors[name].astype(np.float64)
        elif kind == 2:
            tensors[name] = np.ascontiguousarray(tensors[name][: len(tensors[name]) // 2])
        elif kind == 3:
            tensors[name] = np.full_like(tensors[name], -5)
        else:
            tensors[name] = np.ascontiguousarray(tensors[name].reshape(-1)[::-1])
        save_file(tensors, path)
        return f"{path.parent.name}/{path.name}: {name} {kind}"

    def _special(self) -> str:
        """Put a pipe, a folder, a sparse giant or nested folders somewhere."""
        kind = self._rng.randrange(5)
        path = self._rng.choice(self._files())
        if kind == 0:
            path.unlink()
            os.mkfifo(path)
        elif kind == 1:
            path.unlink()
            path.mkdir()
        elif kind == 2:
            with path.open("ab") as file:
                file.truncate(1 << 36)
        elif kind == 3:
            path.parent.joinpath(*"abcdefghij").mkdir(parents=True, exist_ok=True)
        else:
            path.unlink()
        return f"{path.parent.name}/{path.name}: special {kind}"

    def _seal(self) -> None:
        """Write the hashes of the files that lie there, as a forger would."""
        for path in [*(self._case / "run").glob("*/stage.json"), self._case / "dataset" / "manifest.json"]:
            if not _is_small(path):
                continue
            key = "files" if path.name == "manifest.json" else "outputs"
            try:
                value = json.loads(path.read_text())
                for name in value[key]:
                    file = path.parent / name
                    if _is_small(file) and self._case in file.resolve().parents:
                        value[key][name] = digests.hash_file(file)
                path.write_text(json.dumps(value))
            except (ValueError, KeyError, TypeError, OSError, AttributeError):
                continue


def _is_small(path: Path) -> bool:
    """Tell whether a file can be changed here: no link, no pipe, and no giant that an earlier change left."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 24


def _notes(path: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}
