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


@pytest.mark.parametrize(
    ("assignment", "users"),
    [
        ("recommend.users=u001", ("u001",)),
        ("recommend.users=u001, u002", ("u001", "u002")),
        ("recommend.users=007,1e5,2024-01-01", ("007", "1e5", "2024-01-01")),
        ("recommend.users=12", ("12",)),
        ("recommend.users=[12, 13]", ("12", "13")),
        ('recommend.users="a,b"', ("a,b",)),
        ('recommend.users=["a", "b"]', ("a", "b")),
        ("recommend.users=", ()),
    ],
)
def test_a_list_of_ids_needs_no_brackets_and_ids_stay_as_they_are(assignment: str, users: tuple[str, ...]) -> None:
    assert load_config(None, [assignment]).recommend.users == users


def test_other_lists_and_texts_that_look_like_numbers() -> None:
    assert load_config(None, ["evaluate.cutoffs=5,10"]).evaluate.cutoffs == (5, 10)
    assert load_config(None, ["describe.model=1e5"]).describe.model == "1e5"
    with pytest.raises(ConfigError, match=r"evaluate.cutoffs.0.*valid integer.*got 'x'"):
        load_config(None, ["evaluate.cutoffs=x"])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MLLMREC_DESCRBE__ENGINE", "openai", "did you mean MLLMREC_DESCRIBE__ENGINE?"),
        ("MLLMREC_DESCRIBE_ENGINE", "openai", "did you mean MLLMREC_DESCRIBE__ENGINE?"),
        ("MLLMREC_TRAIN__EPOCS", "3", "did you mean MLLMREC_TRAIN__EPOCHS?"),
        ("MLLMREC_SED", "3", "did you mean MLLMREC_SEED?"),
        ("mllmrec_cahce", "x", "did you mean MLLMREC_CACHE?"),
        ("MLLMREC_OTHER__THING", "3", "settings are named MLLMREC_STAGE__KEY; unset it"),
        ("MLLMREC_RECOMMEND__USERS", "u001", "lists in environment variables are JSON"),
    ],
)
def test_a_misspelt_variable_is_an_error(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        load_config()
    assert message in str(refused.value)


def test_variables_that_are_settings_or_belong_to_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {
        "MLLMREC_CACHE": "c.sqlite",
        "MLLMREC_IMAGES": "i",
        "MLLMREC_HOSTS": "not ours",
        "mllmrec_train__dim": "3",
        "MLLMREC_DESCRIBE": '{"words": 7}',
        "MLLMREC_RECOMMEND__USERS": '["u001"]',
    }.items():
        monkeypatch.setenv(variable, value)
    config = load_config()
    assert (config.train.dim, config.describe.words, config.recommend.users) == (3, 7, ("u001",))


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
