"""Runs and datasets from somebody else: what they may not do, each with the planted file still there afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, load, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import InputError, MismatchError, MllmrecError
from mllmrec.export import write
from mllmrec.foundation import digests, storage
from mllmrec.foundation.tables import MAX_UNPACKED_ROWS, read_table
from mllmrec.pipeline import run
from mllmrec.report import write_report
from mllmrec.report.audits import examine_folder
from mllmrec.runs import Run
from tests.fuzz_folders import MAX_ADDED_MIB, MAX_SECONDS, SETTINGS, fuzz
from tests.hash_encoder import hash_encoder

SECRET = "what nobody may read, write or remove"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small run and its dataset; texts are encoded without a model."""
    folder = tmp_path_factory.mktemp("whole")
    generate_catalogue(folder / "shop", CatalogueOptions(items=24, users=24, seed=3))
    dataset = prepare(folder / "shop", folder / "dataset", PrepareOptions(k_core=1))
    with hash_encoder():
        run(dataset, folder / "run", load_config(None, SETTINGS), cache=folder / "c.sqlite")
        yield folder


@pytest.fixture
def case(whole: Path, tmp_path: Path) -> Path:
    """A copy of them, and a secret beside it."""
    for name in ("run", "dataset"):
        shutil.copytree(whole / name, tmp_path / name)
    edit(tmp_path / "run" / "run.json", lambda record: record.update(dataset_folder=str(tmp_path / "dataset")))
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def seal(file: Path) -> None:
    """Write a file's hash where its stage or the manifest has it."""
    path, key = (file.parent / "stage.json", "outputs")
    if not path.exists():
        path, key = (file.parent / "manifest.json", "files")
    edit(path, lambda value: value[key].update({file.name: digests.hash_file(file)}))


def go_on(case: Path, *settings: str) -> Any:
    config = load_config(None, [*SETTINGS, *settings])
    return run(load(case / "dataset"), case / "run", config, cache=case / "c.sqlite")


def read_all(case: Path) -> None:
    """Do what every verb does that reads a run."""
    write_report([case / "run"], page=case / "page.html")
    write(case / "run", case / "out", "mmrec")
    go_on(case)


def test_a_whole_run_is_refused_nothing(case: Path) -> None:
    read_all(case)
    assert examine_folder(case / "dataset") == []
    (case / "run").chmod(0o700)
    assert examine_folder(case / "run") == []


@pytest.mark.parametrize(
    "name", ["{case}/secret", "../../secret", "../run.json", "a/../../../secret", "stage.json", ".x", ""]
)
def test_no_name_in_a_seal_removes_a_file(case: Path, name: str) -> None:
    name = name.format(case=case)
    edit(case / "run" / "recommend" / "stage.json", lambda seal: seal["outputs"].update({name: "0" * 64}))
    for use in (lambda: go_on(case, "recommend.format=jsonl"), lambda: Run(case / "run")):
        with pytest.raises(InputError, match="is refused: recommend/stage.json names .* no stage writes"):
            use()
    assert (case / "secret").read_text() == SECRET
    assert (case / "run" / "run.json").is_file() and (case / "run" / "recommend" / "stage.json").is_file()


@pytest.mark.parametrize(
    "name",
    [".lock", ".run.json.tmp", "run.json", "inspect", "report.html", "train", "train/users.npy", "train/.unfinished-0"],
)
def test_no_link_in_a_run_is_followed(case: Path, name: str) -> None:
    path = case / "run" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(case if name in ("inspect", "train", "train/.unfinished-0") else case / "secret")
    before = sorted(path.name for path in case.iterdir())
    with pytest.raises(MllmrecError):
        read_all(case)
    assert (case / "secret").read_text() == SECRET
    assert sorted(path.name for path in case.iterdir()) in (before, sorted({*before, "c.sqlite"}))
    if name != "run.json":
        assert any("is a symbolic link" in line for line in examine_folder(case / "run"))


@pytest.mark.parametrize(
    "name", ["run/describe/stage.json", "run/run.json", "dataset/items.parquet", "dataset/manifest.json"]
)
def test_pipes_do_not_hang(case: Path, name: str) -> None:
    (case / name).unlink()
    os.mkfifo(case / name)
    with pytest.raises(MllmrecError):
        read_all(case)


@pytest.mark.parametrize(
    "name", ["{case}/secret", "../secret", "images/../../secret", "images/secret", "images/" + "0" * 64 + "/x"]
)
def test_pictures_lie_in_the_dataset(case: Path, name: str) -> None:
    path = case / "dataset" / "items.parquet"
    table = pl.read_parquet(path)
    storage.write_table(path, table.with_columns(images=pl.lit([name.format(case=case)], pl.List(pl.String))))
    seal(path)
    with pytest.raises(InputError, match="names 24 pictures that prepare does not write"):
        load(case / "dataset")
    with pytest.raises(InputError, match="pictures that prepare does not write"):
        write_report([case / "run"], page=case / "page.html")


def test_pictures_are_no_links(case: Path) -> None:
    picture = next((case / "dataset" / "images").iterdir())
    picture.unlink()
    picture.symlink_to(case / "secret")
    with pytest.raises(InputError, match=f"images/{picture.name} is a symbolic link"):
        load(case / "dataset")


@pytest.mark.parametrize("name", ["../secret", "{case}/secret", "features/../../secret", "features/.npy"])
def test_a_manifest_lists_its_own_tables_alone(case: Path, name: str) -> None:
    sha = hashlib.sha256(SECRET.encode()).hexdigest()
    edit(case / "dataset" / "manifest.json", lambda manifest: manifest["files"].update({name.format(case=case): sha}))
    with pytest.raises(InputError, match="which no dataset has"):
        load(case / "dataset")


def test_a_name_does_not_lead_out_of_an_export(case: Path) -> None:
    edit(case / "dataset" / "manifest.json", lambda manifest: manifest.update(name="../../escaped"))
    with pytest.raises(InputError, match="which is no name of a file"):
        write(case / "dataset", case / "out", "mmrec")
    assert not list(case.glob("**/escaped*"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user", pl.lit(24, pl.Int32), "a user outside 0 to 23"),
        ("item", pl.lit(-1, pl.Int32), "a item outside 0 to 23"),
        ("split", pl.lit(3, pl.Int8), "a split outside 0 to 2"),
        ("user", pl.lit(None, pl.Int32), "a user outside"),
        ("item", pl.lit("x"), "column 'item' is String; wanted Int32"),
    ],
)
def test_no_index_is_out_of_range(case: Path, column: str, value: pl.Expr, message: str) -> None:
    path = case / "dataset" / "interactions.parquet"
    storage.write_table(path, pl.read_parquet(path).with_columns(value.alias(column)))
    seal(path)
    with pytest.raises(MllmrecError, match=message):
        load(case / "dataset")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stages", [], "stages"),
        ("dataset_folder", 3, "dataset_folder"),
        ("config", {"model": {}}, "config.model.kind is missing"),
        ("config", {"model": {"kind": ["bpr"]}}, "config.model.kind has the wrong type"),
        ("leaky", "yes", "leaky"),
        ("seed", None, "seed"),
        ("machine", {"cores": []}, "machine"),
        ("machine", {"system": "Linux", "cores": 2}, "machine: Value error, there is no processor"),
        ("versions", {"mllmrec": "0.1"}, "versions: Value error, there is no python, torch"),
    ],
)
def test_a_record_of_another_shape_is_one_line(case: Path, key: str, value: Any, message: str) -> None:
    edit(case / "run" / "run.json", lambda record: record.update({key: value}))
    with pytest.raises(InputError, match=rf"run.json is not in the format of a run: {message}") as caught:
        read_all(case)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("read", {"time": {"unit": "\x1b[2J"}}, "read.time.unit"),
        ("read", {"files": [{"name": "a.csv", "columns": ["user"], "rows": 1, "rejected": 0}]}, "read.files.0.columns"),
        ("read", {"unread": 3}, "read.unread"),
        ("options", {"min_rating": "much"}, "options.min_rating"),
        ("updates", "often", "updates"),
    ],
)
def test_a_manifest_of_another_shape_is_one_line(case: Path, key: str, value: Any, message: str) -> None:
    edit(case / "dataset" / "manifest.json", lambda manifest: manifest.update({key: value}))
    with pytest.raises(InputError, match=f"manifest.json is not in the format of a dataset: {message}"):
        load(case / "dataset")


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000, "1" * 5_000, "\x80", '{"schema_version": 1}'])
def test_json_of_another_shape_is_one_line(case: Path, text: str) -> None:
    for path in (case / "run" / "run.json", case / "dataset" / "manifest.json"):
        whole = path.read_bytes()
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"is not JSON|not in the format"):
            read_all(case)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8), np.float32),
        np.zeros((24, 0), np.float32),
        np.zeros((24, 8), np.float64),
        np.zeros(24, np.float32),
        np.full((24, 8), np.nan, np.float32),
        np.zeros((24, 8), "S4"),
    ],
)
def test_sealed_vectors_of_another_shape_are_one_line(case: Path, array: Any) -> None:
    path = case / "run" / "train" / "users.npy"
    np.save(path, array)
    seal(path)
    with pytest.raises(MllmrecError, match="users"):
        write(case / "run", case / "out", "vectors")


def test_ids_of_others_in_sealed_recommendations_are_one_line(case: Path) -> None:
    path = case / "run" / "recommend" / "recommendations.parquet"
    storage.write_table(path, pl.read_parquet(path).with_columns(item=pl.lit("nobody")))
    seal(path)
    with pytest.raises(MismatchError, match=r"recommendations.item names 1 ids .* such as 'nobody'"):
        read_all(case)


def test_a_table_that_unpacks_to_far_more_is_refused_unread(tmp_path: Path) -> None:
    rows = 8 * MAX_UNPACKED_ROWS
    storage.write_table(tmp_path / "bomb.parquet", pl.DataFrame({"id": pl.repeat("", rows, eager=True)}))
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match="would unpack to .* in 8,000,000 rows"):
        read_table(tmp_path / "bomb.parquet", {"id": pl.String()})


def test_a_file_that_is_mostly_holes_is_refused(case: Path) -> None:
    with (case / "run" / "train" / "users.npy").open("ab") as file:
        file.truncate(1 << 36)
    with pytest.raises(InputError, match=r"train/users.npy claims 68,719,476,736 bytes"):
        Run(case / "run")


def test_a_changed_file_is_named_before_it_is_read(case: Path) -> None:
    (case / "run" / "recommend" / "recommendations.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="recommend was changed after it was written"):
        _ = Run(case / "run").recommendations


def test_a_dataset_that_was_moved_or_exchanged_is_said(case: Path) -> None:
    (case / "dataset").rename(case / "moved")
    with pytest.raises(InputError, match=r"dataset, which is not there; if it was moved: mllmrec run PLACE --out"):
        write_report([case / "run"], page=case / "page.html")
    assert run(load(case / "moved"), case / "run", load_config(None, SETTINGS), cache=case / "c.sqlite").stages
    assert Run(case / "run").dataset.folder == case / "moved"
    prepare_other(case / "moved")
    with pytest.raises(MismatchError, match="is not the dataset and split that"):
        _ = Run(case / "run").dataset


def prepare_other(folder: Path) -> None:
    generate_catalogue(folder.parent / "other", CatalogueOptions(items=24, users=30, seed=4))
    prepare(folder.parent / "other", folder, PrepareOptions(k_core=1), force=True)


def test_a_new_run_is_closed_to_others(whole: Path) -> None:
    modes = {path.stat().st_mode & 0o077 for path in (whole / "run").rglob("*")}
    assert modes == {0} and (whole / "run").stat().st_mode & 0o777 == 0o700
    assert (whole / "c.sqlite").stat().st_mode & 0o777 == 0o600


def test_doctor_says_what_it_would_refuse(case: Path) -> None:
    cli = CliRunner(env={"COLUMNS": "200"})
    edit(case / "run" / "train" / "stage.json", lambda seal: seal["outputs"].update({"/etc/passwd": "0" * 64}))
    (case / "run" / "x").symlink_to("/etc")
    told = cli.invoke(app, ["doctor", str(case / "run"), "--json"])
    assert told.exit_code == 1
    assert json.loads(told.output)["problems"] == [
        "x is a symbolic link, which may lead out of the folder; replace it by what it stands for"
    ]
    (case / "run" / "x").unlink()
    told = cli.invoke(app, ["doctor", str(case / "run")])
    assert told.exit_code == 1 and "train/stage.json names '/etc/passwd' as an output" in told.output
    fine = cli.invoke(app, ["doctor", str(case / "dataset")])
    assert (fine.exit_code, fine.output.strip()) == (0, f"{case / 'dataset'}: nothing to refuse")


def check(folder: Path, cases: int) -> None:
    figures = fuzz(folder, cases, seed=1)
    assert figures.cases == cases and not figures.failures, "\n".join(figures.failures[:20])
    assert figures.longest < MAX_SECONDS and figures.added_mib < MAX_ADDED_MIB
    assert any("exit 0" in end for end in figures.ends) and any("Error" in end for end in figures.ends)


def test_changed_folders_touch_nothing_outside(tmp_path: Path) -> None:
    check(tmp_path, 24)


@pytest.mark.slow
def test_five_thousand_changed_folders_touch_nothing_outside(tmp_path: Path) -> None:
    check(tmp_path, 5_000)


def test_advice_names_the_server_that_a_run_would_send_a_key_to(case: Path) -> None:
    def name_server(record: Any) -> None:
        record["config"]["server"] |= {"base_url": "http://elsewhere.example/v1", "api_key_env": "SHOP_KEY"}

    edit(case / "run" / "run.json", name_server)
    shutil.rmtree(case / "run" / "train")
    with pytest.raises(InputError, match=r"it sends \$SHOP_KEY to http://elsewhere\.example/v1"):
        _ = Run(case / "run").fitted


@pytest.mark.parametrize(
    ("file", "part", "key"), [("encode/encode.json", "cuts", "items_cut"), ("graph/graph.json", "statistics", "edges")]
)
@pytest.mark.parametrize("value", ["many", None, -1, 1.5, True, [1]])
def test_a_count_of_another_type_is_one_line(case: Path, file: str, part: str, key: str, value: Any) -> None:
    path = case / "run" / file
    edit(path, lambda notes: notes[part].update({key: value}))
    seal(path)
    with pytest.raises(MismatchError, match=rf"{file}: {key} is .*; wanted a count"):
        _ = getattr(Run(case / "run"), "features" if part == "cuts" else "graph")
