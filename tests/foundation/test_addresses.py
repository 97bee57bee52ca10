"""Runs and datasets in an object store: brought here, taken back stage by stage, and a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import mllmrec
from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError, StorageError
from mllmrec.foundation.addresses import fetched, local_path, mirrored, parse_address
from tests.hash_encoder import hash_encoder

CONFIG = ["profile.kind=mean", "model.kind=ease"]


@pytest.fixture
def store() -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    yield "memory://shop"
    if memory.exists("/shop"):
        memory.rm("/shop", recursive=True)


def test_an_address_survives_the_loss_of_a_slash_and_file_is_this_machine() -> None:
    assert parse_address(Path("s3://bucket/run/")) == parse_address("s3://bucket/run") == "s3://bucket/run"
    assert parse_address("run") is None and parse_address("/place/run") is None and parse_address("c:/x") is None
    assert parse_address("file:///place/run") is None
    assert local_path("file:///place/run") == local_path(Path("file:///place/run")) == Path("/place/run")
    assert local_path("run") == Path("run")


def test_a_run_in_a_store_is_taken_there_stage_by_stage_and_goes_on(
    dataset: Dataset, store: str, tmp_path: Path
) -> None:
    memory, config = fsspec.filesystem("memory"), load_config(None, CONFIG)
    memory.put(f"{dataset.folder}/", "/shop/dataset/", recursive=True)
    options = {"config": config, "cache": tmp_path / "c.sqlite"}
    mllmrec.run(f"{store}/dataset", f"{store}/run", until="profile", **options)
    assert sorted(memory.ls("/shop/run/profile", detail=False)) == [
        "/shop/run/profile/profiles.parquet", "/shop/run/profile/stage.json",
    ]  # fmt: skip
    made = mllmrec.run(f"{store}/dataset", f"{store}/run", until="profile", **options)
    assert made.stages["describe"]["reused"] and made.stages["profile"]["reused"]
    memory.pipe("/shop/run/describe/stage.json", b"{")  # a torn seal is a stage that is not done
    made = mllmrec.run(f"{store}/dataset", f"{store}/run", until="profile", **options)
    assert not made.stages["describe"]["reused"] and made.stages["profile"]["reused"]
    here = mllmrec.run(dataset, tmp_path / "run", until="profile", **options)
    seals = [json.loads(memory.cat("/shop/run/profile/stage.json"))]
    seals.append(json.loads((tmp_path / "run" / "profile" / "stage.json").read_text()))
    assert seals[0] == seals[1] and here.stages["profile"]["reused"] is False


def test_the_evaluation_of_a_finished_run_in_a_store_outlives_the_folder_that_it_was_brought_to(
    dataset: Dataset, store: str, tmp_path: Path
) -> None:
    config = load_config(None, [*CONFIG, "evaluate.cutoffs=[20]"])
    with hash_encoder():
        made, again = (
            mllmrec.run(dataset, f"{store}/run", config, until="evaluate", cache=tmp_path / "c.sqlite")
            for _ in range(2)
        )
    assert again.stages["evaluate"]["reused"] and not made.stages["evaluate"]["reused"]
    assert again.evaluate.per_user.equals(made.evaluate.per_user) and made.evaluate.per_user.height
    assert again.evaluate.heldout.equals(made.evaluate.heldout)


def test_what_is_no_folder_of_ours_is_one_line(store: str) -> None:
    with pytest.raises(InputError, match="memory://shop/none is empty or missing"), fetched(f"{store}/none"):
        pass
    refusal = "nosuch://x cannot be opened: .*; install what reads nosuch://"
    with pytest.raises(ConfigError, match=refusal), mirrored("nosuch://x"):
        pass
    fsspec.filesystem("memory").pipe("/shop/run/.hidden/x", b"")
    refusal = "holds '.hidden/x', a name that no run or dataset has"
    with pytest.raises(InputError, match=refusal), mirrored(f"{store}/run"):
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real S3 server on this machine, with a bucket named shop."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'mllmrec[s3]', or make test-ray")
    servers = pytest.importorskip("moto.server", reason="moto is not installed: make test-ray")
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("shop")
    yield server
    server.stop()


def test_a_real_s3_server_keeps_files_and_refuses_in_one_line(s3: Any) -> None:
    with mirrored("s3://shop/run") as (folder, push):
        (folder / "graph").mkdir()
        (folder / "graph" / "graph.json").write_text("{}")
        push([folder / "graph" / "graph.json"])
    with fetched("s3://shop/run") as folder:
        assert (folder / "graph" / "graph.json").read_text() == "{}"
    refusal = "cannot read s3://nobody/run: The specified bucket does not exist"
    with pytest.raises(StorageError, match=refusal), mirrored("s3://nobody/run"):
        pass
    with mirrored("s3://shop/run") as (folder, push):
        (folder / "x").write_text("")
        fsspec.filesystem("s3", skip_instance_cache=True).rm("shop", recursive=True)  # while a stage is computed
        with pytest.raises(StorageError, match="cannot write s3://shop/run: "):
            push([folder / "x"])


def test_a_run_on_a_real_s3_server_has_the_bytes_of_a_run_here(s3: Any, dataset: Dataset, tmp_path: Path) -> None:
    bucket, config = fsspec.filesystem("s3", skip_instance_cache=True), load_config(None, CONFIG)
    bucket.put(f"{dataset.folder}/", "shop/dataset/", recursive=True)
    options = {"config": config, "cache": tmp_path / "c.sqlite"}
    mllmrec.run("s3://shop/dataset", "s3://shop/run", until="profile", **options)
    bucket.rm("shop/run/profile/stage.json")  # as if the run was killed before its last file
    made = mllmrec.run("s3://shop/dataset", "s3://shop/run", until="profile", **options)
    assert made.stages["describe"]["reused"] and not made.stages["profile"]["reused"]
    mllmrec.run(dataset, tmp_path / "run", until="profile", **options)
    bucket.invalidate_cache()
    for stage in ("describe", "profile"):
        for file in (tmp_path / "run" / stage).iterdir():
            assert bucket.cat(f"shop/run/{stage}/{file.name}") == file.read_bytes()
