"""One config: where a value comes from, and what an unknown key says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec.config import ModelConfig, load_config, to_toml
from mllmrec.errors import ConfigError


def test_flags_beat_the_file_which_beats_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text("[train]\ndim = 2\nlayers = 2\n")
    monkeypatch.setenv("MLLMREC_TRAIN__DIM", "1")
    monkeypatch.setenv("MLLMREC_TRAIN__LAYERS", "1")
    monkeypatch.setenv("MLLMREC_TRAIN__EPOCHS", "1")
    train = load_config(tmp_path / "c.toml", ["train.dim=3"]).train
    assert (train.dim, train.layers, train.epochs, train.patience) == (3, 2, 1, 20)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("graph.treshold=0.5", r"unknown config key 'graph.treshold' \(did you mean 'graph.threshold'\?\)"),
        ("grahp.threshold=0.5", r"unknown config key 'grahp' \(did you mean 'graph'\?\)"),
        ("graph.threshold=2", "'graph.threshold': Input should be less than or equal to 1; got 2"),
        ("profile.kind=median", "'profile.kind': Input should be 'text', 'mean' or 'hidden'; got 'median'"),
        ("graph.threshold", "write it as stage.key=value"),
        ("seed.x=1", "'seed'"),
    ],
)
def test_a_wrong_setting_says_which_and_what_was_wanted(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [assignment])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config .*none\.toml"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "c.toml").write_text("[graph\n")
    with pytest.raises(ConfigError, match=r"c\.toml is not TOML"):
        load_config(tmp_path / "c.toml")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = load_config(None, ["encode.model=a\\b", "evaluate.cutoffs=[1, 3]", "describe.images=false"])
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "c.toml") == config


def test_a_later_setting_is_part_of_its_own_kinds_identity_alone() -> None:
    def known(**settings: object) -> dict[str, object]:
        return ModelConfig(**settings).identity()

    assert known(kind="item-knn", neighbours=5) != known(kind="item-knn", neighbours=6)
    assert known(kind="ials", sweeps=5) != known(kind="ials", sweeps=6)
    assert known(kind="ease", neighbours=5, sweeps=5) == known(kind="ease")  # what older versions kept is found
    assert known(kind="ease", regularisation=5) != known(kind="ease")
