"""Model folders from strangers: whatever names code is refused before a library reads the folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mllmrec.config import EncodeConfig
from mllmrec.errors import EngineError
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.model_folder import check_encoder_folder, locate, refuse_code

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"},
]


def model(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8, **settings}))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoModel": "code.Model"}},
        {"text_config": {"auto_map": {"AutoModel": "owner/repo--code.Model"}}},
        {"attn_implementation": "owner/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn2@main:forward"},
        {"attn_implementation": {"text_config": "sdpa", "vision_config": "owner/kernel"}},
        {"vision_config": {"_attn_implementation_internal": "owner/kernel"}},
        {"experts_implementation": "owner/kernel"},
        {"trust_remote_code": True},
        {"nested": [{"deep": {"trust_remote_code": 1}}]},
        {"custom_generate": "owner/repo"},
        {"use_kernels": True},
    ],
)
def test_settings_that_name_code_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json: .*mllmrec runs no code that comes with a model"):
        locate(str(model(tmp_path / "m", **settings)), "main")


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "1_Pooling/config.json"])
def test_every_settings_file_is_looked_at(name: str, tmp_path: Path) -> None:
    file = model(tmp_path / "m") / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.Own", None]}}))
    with pytest.raises(EngineError, match="brings code of its own"):
        locate(str(tmp_path / "m"), "main")
    refuse_code(tmp_path / "m", own_classes=True)  # of the hub: the class is never loaded, and older versions need it


def test_ordinary_folders_pass(tmp_path: Path) -> None:
    folder = model(
        tmp_path / "m", auto_map={}, attn_implementation="sdpa", _attn_implementation=None, trust_remote_code=False
    )
    (folder / "tokenizer.json").write_text('{"auto_map": "a token of a vocabulary, no setting"}')
    assert locate(str(folder), "main") == folder


def test_a_settings_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (model(tmp_path / "m") / "extra.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(EngineError, match="settings of a model have at most"):
        locate(str(tmp_path / "m"), "main")


def encoder(folder: Path, modules: object = MODULES, **dense: Any) -> Path:
    model(folder)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Dense").mkdir(exist_ok=True)
    settings = {"in_features": 8, "activation_function": "torch.nn.modules.activation.Tanh", **dense}
    (folder / "1_Dense" / "config.json").write_text(json.dumps(settings))
    return folder


def test_an_encoder_of_known_modules_passes(tmp_path: Path) -> None:
    check_encoder_folder(encoder(tmp_path / "e"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "planted_module.Own"}, "names the module 'planted_module.Own'"),
        ({"type": "sentence_transformersx.Own"}, "names the module"),
        ({"type": None}, "names the module None"),
        ({"path": "/etc"}, "names the path '/etc'"),
        ({"path": "a/../../b"}, "which is not inside its folder"),
    ],
)
def test_modules_of_others_and_paths_outside_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=message):
        check_encoder_folder(encoder(tmp_path / "e", [MODULES[0], MODULES[1] | change]))


def test_an_activation_or_a_routed_module_of_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="names the activation 'os.system'"):
        check_encoder_folder(encoder(tmp_path / "e", activation_function="os.system"))
    (encoder(tmp_path / "e") / "router_config.json").write_text('{"types": {"query_0": "planted_module.Own"}}')
    with pytest.raises(EngineError, match=r"router_config.json names the module 'planted_module.Own'"):
        check_encoder_folder(tmp_path / "e")
    with pytest.raises(EngineError, match="is no list of modules"):
        check_encoder_folder(encoder(tmp_path / "f", {"a": 1}))


@pytest.mark.parametrize("backend", ["torch"])
def test_the_planted_module_of_an_encoder_never_runs(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder(tmp_path / "e", [MODULES[0] | {"type": "planted_module.Own"}])
    (folder / "planted_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(EngineError, match="names the module"):
        Encoder(EncodeConfig(model=str(folder), backend=backend))  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists() and "planted_module" not in sys.modules
