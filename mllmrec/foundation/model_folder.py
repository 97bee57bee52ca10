"""Find a model's folder, digest its content, and refuse one that would run code of its own.

A folder may come from a stranger. Its JSON files can name code: a class in a Python file (`auto_map`), a compiled
kernel on the hub (`attn_implementation = "owner/kernel"`), a module class of sentence-transformers. All of it is
looked for before a library reads the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mllmrec.errors import EngineError, first_line
from mllmrec.foundation import digests, storage

_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
_MAX_HEADER = 100 << 20  # bytes of a safetensors header
_MAX_JSON = 4 << 20  # bytes of a settings file; tokenizer files, which may be larger, are not settings
_NOT_SETTINGS = ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json")
_IMPLEMENTATIONS = ("attn_implementation", "attention_implementation", "experts_implementation")
_ENCODER_MODULES = "sentence_transformers."
_ACTIVATIONS = "torch.nn.modules."


def locate(name: str, revision: str) -> Path:
    """Return the local folder of a model.

    A path is taken as it is. A hub name goes through the hub's cache and is downloaded if need be. The cache is used
    without a question to the hub, so a run does not change because a model moved on.

    Raises:
        EngineError: there is no such folder or model, it is gated, the hub cannot be reached, or the model's files
            name code to run.
    """
    if Path(name).is_dir():
        folder = Path(name)
        if not (folder / "config.json").is_file():
            raise EngineError(
                f"{folder} is no model: it has no config.json; give the folder that save_pretrained wrote"
            )
        refuse_code(folder)
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise EngineError(f"there is no model folder {name!r}; give a Hugging Face name such as org/model, or a folder")
    folder = _from_hub(name, revision)
    # Models that transformers has taken over keep the entry for older versions; their own class is never loaded.
    refuse_code(folder, own_classes=True)
    return folder


def _from_hub(name: str, revision: str) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import errors

    def snapshot(*, local: bool) -> Path:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS), local_files_only=local)
        )

    fetch = f"on a machine with access run: hf download {name} --revision {revision}"
    try:
        return snapshot(local=True)
    except FileNotFoundError:
        pass
    try:
        return snapshot(local=False)
    except errors.GatedRepoError as error:
        raise EngineError(
            f"the model {name!r} is gated: accept its terms at https://huggingface.co/{name}, then log in with "
            "hf auth login, or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EngineError(
            f"the hub has no model {name!r}, or it is private; check the name, or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise EngineError(f"the model {name!r} has no revision {revision!r}; check transformers.revision") from error
    except Exception as error:  # whatever the network raises
        raise EngineError(
            f"the files of the model {name!r} (config.json and weights, revision {revision!r}) are not in the local "
            f"cache, and the hub cannot be reached ({first_line(error)}); {fetch}, and copy the cache, or give a "
            "folder"
        ) from error


def refuse_code(folder: Path, *, own_classes: bool = False) -> None:
    """Refuse a model folder whose settings name code to run.

    Args:
        folder: of the model.
        own_classes: pass over `auto_map` entries; the caller loads no class that transformers does not have.

    Raises:
        EngineError: a settings file names a class, a kernel or remote code, or cannot be read.
    """
    for file in sorted(folder.rglob("*.json")):
        if file.name in _NOT_SETTINGS or file.name.endswith(".index.json"):
            continue
        if file.stat().st_size > _MAX_JSON:
            raise EngineError(
                f"{file} is {file.stat().st_size >> 20} MiB; settings of a model have at most {_MAX_JSON >> 20} MiB; "
                "download the model again"
            )
        for key, value in _entries(storage.read_json(file)):
            if problem := _code(key, value, own_classes=own_classes):
                raise EngineError(
                    f"{file}: {problem}, and mllmrec runs no code that comes with a model; use a version that "
                    'needs no custom code, or serve the model elsewhere and use engine = "openai"'
                )


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Return every key and value of nested JSON."""
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            yield from current.items()
            stack.extend(current.values())
        elif isinstance(current, list):
            stack.extend(current)


def _code(key: str, value: object, *, own_classes: bool) -> str:
    """Return the code that an entry names, in words; empty if it names none."""
    if key == "auto_map" and value and not own_classes:
        return "auto_map brings code of its own (trust_remote_code)"
    if key == "trust_remote_code" and value:
        return "trust_remote_code is switched on"
    if key in ("custom_generate", "use_kernels", "kernel_config") and value:
        return f"{key} names code"
    if any(name in key for name in _IMPLEMENTATIONS):
        names = value.values() if isinstance(value, dict) else [value]
        kernels = [name for name in names if isinstance(name, str) and any(mark in name for mark in "/:@")]
        return f"{key} names the kernel {kernels[0]!r} of a hub" if kernels else ""
    return ""


def check_encoder_folder(folder: Path) -> None:
    """Refuse a folder of sentence-transformers that names classes of others, or files outside of it.

    Args:
        folder: of the encoder.

    Raises:
        EngineError: modules.json or the settings of a module name such code or files.
    """
    refuse_code(folder)
    for router in folder.rglob("router_config.json"):
        for kind in (storage.read_json(router).get("types") or {}).values():
            _check_module_type(router, kind)
    file = folder / "modules.json"
    if not file.is_file():
        return
    modules = storage.read_json(file)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise EngineError(f"{file} is no list of modules")
    for module in modules:
        kind, path = module.get("type"), module.get("path")
        _check_module_type(file, kind)
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise EngineError(f"{file} names the path {path!r}, which is not inside its folder")
        _check_module(folder / path / "config.json")


def _check_module_type(file: Path, kind: object) -> None:
    if not isinstance(kind, str) or not kind.startswith(_ENCODER_MODULES):
        raise EngineError(
            f"{file} names the module {kind!r}; mllmrec loads those of sentence-transformers and runs no code that "
            "comes with a model"
        )


def _check_module(file: Path) -> None:
    """Refuse an activation that is not of torch: the library imports and calls whatever stands there."""
    if not file.is_file():
        return
    for key, value in _entries(storage.read_json(file)):
        named = key.endswith("activation_function") and isinstance(value, str) and "." in value
        if named and not str(value).startswith(_ACTIVATIONS):
            raise EngineError(f"{file} names the activation {value!r}; only those of torch.nn are loaded")


def identity(folder: Path) -> str:
    """Return a digest that tells models apart: small files by their content, weights by size and samples."""
    hasher = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".txt", ".model"):
            hasher.update(f"{file.name} {digests.hash_file(file)}\n".encode())
        elif file.suffix == ".safetensors":
            hasher.update(f"{file.name} {digests.hash_samples(file)}\n".encode())
    return hasher.hexdigest()[:24]


def count_weights(file: Path) -> int:
    """Return the number of values in a safetensors file, by its header.

    Raises:
        EngineError: it is no safetensors file.
    """
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if size > _MAX_HEADER:
            raise EngineError(f"{file} is no safetensors file: its header claims {size >> 20} MiB")
        try:
            header = json.loads(opened.read(size))
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            return sum(math.prod(map(int, shape)) for shape in shapes)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{file} is no safetensors file: its header is not JSON") from error
        except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
            raise EngineError(f"{file} is no safetensors file: its header lists no shapes") from error
