"""One config: where a value comes from, and what an unknown key says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec.config import load_config, override, to_toml
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
        ("model.kind=blend", "model.kind=blend is now model.kind=ensemble"),
        ("model.kind=eaze", r"there is no model.kind 'eaze' \(did you mean 'ease'\?\); there are ensemble, mllmrec"),
        ("model.rank=32", "config key 'model.rank' is now 'model.factors'"),
        ("model.factor=32", r"'model.factor' of model.kind=ensemble \(did you mean 'factors'\?\)"),
        ("model.decay=1", "'model.decay' of model.kind=ensemble; bpr, vbpr, lightgcn, freedom, clcrec have it"),
        ("model.factors=-1", "config key 'model.factors': Input should be greater than or equal to 0; got -1"),
        ("model=3", "config key 'model': wanted settings such as model.kind; got 3"),
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
    with pytest.raises(ConfigError, match=r"evaluate.cutoffs.0.*less than 2147483648"):
        load_config(None, ["evaluate.cutoffs=5000000000"])


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


def test_each_kind_has_its_own_settings_and_another_kind_starts_from_its_defaults(tmp_path: Path) -> None:
    config = load_config(None, ["model.kind=ials", "model.factors=32"])
    assert config.model.model_dump()["factors"] == 32
    assert "factors = 32" in to_toml(config) and "decay" not in to_toml(config)
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "c.toml", ["model.iterations=3"]).model.model_dump()["factors"] == 32
    other = load_config(tmp_path / "c.toml", ["model.kind=ease", "model.regularization=7"]).model.model_dump()
    defaults = {"content_weight": 20.0, "dense_gib": 8.0, "half_lives": (0.0,)}
    assert other == {"kind": "ease", "regularization": 7.0} | defaults
    assert override(config, ["model.kind=ials"]).model == config.model


def test_an_identity_tells_fits_apart() -> None:
    def identity(*settings: str) -> dict[str, object]:
        return load_config(None, settings).model.identity()

    assert identity("model.kind=item-knn", "model.n_neighbors=5") != identity("model.kind=item-knn")
    assert identity("model.kind=ials", "model.iterations=5") != identity("model.kind=ials")
    assert identity("model.kind=ease") != identity("model.kind=ridge")


def test_the_environment_sets_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLMREC_MODEL__KIND", "ials")
    monkeypatch.setenv("MLLMREC_MODEL__FACTORS", "8")
    assert load_config().model.model_dump()["factors"] == 8
