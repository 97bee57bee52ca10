"""Files that somebody planted where runs, caches, experiments and batches keep theirs."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mllmrec.dataset.picture_store import open_store
from mllmrec.dataset.readers.formats import Reading, read_cells, read_objects
from mllmrec.dataset.readers.source import Rejects
from mllmrec.errors import EngineError, InputError, MismatchError, StorageError
from mllmrec.experiments.judge import SHOWN
from mllmrec.experiments.trial import Trial, Trials
from mllmrec.foundation import storage
from mllmrec.foundation.images import MOST_FILE_BYTES
from mllmrec.foundation.model_folder import count_weights
from mllmrec.foundation.progress import silent
from mllmrec.foundation.tables import read_table
from mllmrec.foundation.web.body import Redactor
from mllmrec.reason.batch_files import read_results
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import _image_digest
from mllmrec.reason.engine import Answer
from mllmrec.report.sections.stages import training
from mllmrec.training import checkpoint

SECRET = b"what nobody may read, write or remove"


def write_bomb(path: Path, *, nested: bool) -> None:
    """Write a few hundred bytes of parquet: a long text that each row names, or a list of millions of nulls."""
    if nested:
        values = pa.nulls(30_000_000, pa.string())
        column = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    else:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 51_200]))
    pq.write_table(pa.table({"id": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1000


@pytest.mark.parametrize("nested", [False, True])
def test_a_table_that_repeats_one_value_is_refused_unread(tmp_path: Path, nested: bool) -> None:
    path = tmp_path / "bomb.parquet"
    write_bomb(path, nested=nested)
    with pytest.raises(InputError, match="bytes would unpack to"):
        read_table(path, {})
    with pytest.raises(InputError, match="unpacks to over .* MiB in"):
        next(read_objects(path, Reading(Rejects())))
    if not nested:
        with pytest.raises(InputError, match="unpacks to over .* MiB in 60,000 rows"):
            next(read_cells(path, Reading(Rejects()), lambda _: {"user": ["id"]}))


def test_a_table_of_repeated_short_texts_is_read(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": ["a", "b"] * 50_000, "tags": [["x", None]] * 100_000})
    storage.write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet", {"id": pl.String()}).equals(table)


def test_texts_are_read_as_places_among_known_ones(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": ["b", None, "a", "c", "b"], "n": [1, 2, 3, 4, 5], "note": ["x"] * 5})
    storage.write_table(tmp_path / "t.parquet", table)
    known, columns = pl.Series(["a", "b"]), {"id": pl.Int32(), "n": pl.Int64()}
    places = read_table(tmp_path / "t.parquet", columns, {"id": known})
    assert places.to_dict(as_series=False) == {"id": [1, -1, 0, -1, 1], "n": [1, 2, 3, 4, 5]}
    storage.write_table(tmp_path / "empty.parquet", table.clear())
    assert read_table(tmp_path / "empty.parquet", columns, {"id": known}).shape == (0, 2)
    with pytest.raises(InputError, match="is not a table that can be read: a column is int64; wanted texts"):
        read_table(tmp_path / "t.parquet", columns, {"n": known})
    with pytest.raises(InputError, match="is not a table that can be read"):
        read_table(tmp_path / "t.parquet", {"other": pl.Int32()}, {"other": known})


def test_a_table_of_a_type_that_polars_panics_of_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"score": pa.array([Decimal(1)], pa.decimal256(60, 2))}), path)
    with pytest.raises(InputError, match=r"t\.parquet is not a table that can be read"):
        read_table(path, {})


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_a_cache_is_no_hard_link(tmp_path: Path, ending: str) -> None:
    path, secret = tmp_path / "c.sqlite", tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o644)
    if ending:
        with open_cache(path):
            pass
    (tmp_path / f"c.sqlite{ending}").hardlink_to(secret)
    with pytest.raises(StorageError, match="is a hard link to another file"), open_cache(path):
        pass
    assert secret.read_bytes() == SECRET and secret.stat().st_mode & 0o777 == 0o644


def test_a_row_that_is_no_utf8_is_damaged_and_a_giant_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_cache(path) as cache:
        cache.put({"good": Answer("text", "ok", "")})

    def plant(value: str) -> None:
        connection = sqlite3.connect(path)
        connection.execute(f"INSERT INTO generations VALUES ('bad', {value}, 'ok', '', 'x', '', '', 0)")
        connection.commit()
        connection.close()

    plant("CAST(x'ff' AS TEXT)")
    with open_cache(path) as cache:
        assert list(cache.get(["good", "bad"])) == ["good"] and cache.damaged == 1
        assert cache.verify() == (2, 1) and cache.prune() == 1
    plant("zeroblob(100000000)")
    with open_cache(path) as cache, pytest.raises(StorageError, match="too big"):
        cache.get(["bad"])


def test_the_index_of_a_picture_store_is_no_hard_link(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "index.jsonl").hardlink_to(tmp_path / "secret")
    with open_store(tmp_path / "store", silent) as store, pytest.raises(StorageError, match="index.jsonl is a hard"):
        store.add("https://example.org/a.png", png)
    assert (tmp_path / "secret").read_bytes() == SECRET


@pytest.fixture
def png() -> bytes:
    from io import BytesIO

    from PIL import Image

    packed = BytesIO()
    Image.new("RGB", (16, 16)).save(packed, "PNG")
    return packed.getvalue()


@pytest.mark.parametrize("name", ["cells", "inputs", "cells/x.parquet"])
def test_an_experiment_does_not_follow_links(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "cells").mkdir(parents=True)
    path = tmp_path / "out" / name
    if path.is_dir():
        path.rmdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name} is a symbolic link"):
        Trials(cast(Any, None), tmp_path / "out", ("valid",), None, silent)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("notes", ["{}", "[]", '{"seconds": "x", "mib": null, "summary": ""}', "[" * 5000])
def test_a_trial_of_another_shape_is_one_line(tmp_path: Path, notes: str) -> None:
    table = pl.DataFrame({"split": ["valid"], **{name: [0.5] for name in SHOWN}})
    storage.write_table(tmp_path / "t.parquet", table, notes={"cell": notes})
    with pytest.raises(InputError, match=r"t\.parquet is damaged") as caught:
        Trial.load(tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)
    storage.write_table(tmp_path / "t.parquet", table.with_columns(pl.lit("x").alias(SHOWN[0])))
    with pytest.raises(InputError, match="is String; wanted Float64"):
        Trial.load(tmp_path / "t.parquet")


def test_a_pipe_beside_batch_results_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"custom_id": "a"}\n')
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match=r"b\.jsonl cannot be read.* it is no regular file"):
        read_results(tmp_path, ["a"])


@pytest.mark.parametrize(
    "header", ["[]", "3", '{"a": 1}', '{"a": {"shape": "xy"}}', '{"a": {"shape": [1e999]}}', "[" * 100_000]
)
def test_a_tensor_header_of_another_shape_is_one_line(tmp_path: Path, header: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(EngineError, match="is no safetensors file: its header"):
        count_weights(path)


@pytest.mark.parametrize("state", ["[]", "{", '{"curve": [{}]}', '{"curve": 3}', '{"curve": [], "other": 1}'])
def test_a_checkpoint_of_another_shape_is_one_line(tmp_path: Path, state: str) -> None:
    from safetensors.torch import save_file

    network = torch.nn.Linear(2, 2)
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "c", {"identity": "same", "state": state})
    with pytest.raises(MismatchError, match="is not in the expected format"):
        checkpoint.restore(tmp_path / "c", "same", network, torch.optim.Adam(network.parameters()), torch.device("cpu"))


def test_a_picture_of_holes_is_not_hashed(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(1 << 36)
    assert MOST_FILE_BYTES < 1 << 36 and _image_digest(tmp_path / "x.png") == f"too large: {1 << 36} bytes"


def test_a_planted_curve_is_left_where_the_model_has_none() -> None:
    run = SimpleNamespace(has=lambda stage: True, fitted=SimpleNamespace(is_network=False))
    assert training(cast(Any, run)) is None


def test_a_shape_beyond_all_memory_is_one_line(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(64))
    with pytest.raises(InputError, match="is not a plain .npy array"):
        storage.read_array(path)
    assert np.geterr()["over"] == "warn"


@pytest.mark.parametrize(
    "spell", [lambda c: f"\\{ord(c):03o}", lambda c: f"={ord(c):02X}", lambda c: {"/": "&sol;"}.get(c, c)]
)
def test_a_key_in_octal_mail_or_named_entities_is_blotted_out(spell: Any) -> None:
    key = "sk-Ab/c12345678"
    assert Redactor(key)(json.dumps(f"no {''.join(map(spell, key))} here").replace("\\\\", "\\")) == '"no (key) here"'
