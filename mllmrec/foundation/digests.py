"""Hash contents.

Digests, and the question that each answers:

| digest | made by | question |
|---|---|---|
| `hash_file` | SHA-256 of a file's bytes | Is this artefact the file that its stage or `prepare` wrote? |
| `hash_value` | SHA-256 of canonical JSON | Are settings and inputs the same (fingerprints, `Run.digest`)? |
| `hash_bytes` | SHA-256 of bytes in memory | Is this picture or answer the same (keys of the generation cache)? |
| `hash_samples` | size and 32 samples of a file | Are these model weights the same, without reading gigabytes? |
| `Histories.digest` | SHA-256 of users' ordered items | Was this artefact made from these training interactions? |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_SAMPLES, _SAMPLE_BYTES = 32, 1 << 16
_READERS = 2  # files that are hashed at once


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Iterable[Path]) -> list[str]:
    """Return the SHA-256 of each file's bytes, hexadecimal; two files are read at once, the largest ones first."""
    listed = list(files)
    with ThreadPoolExecutor(_READERS) as pool:
        found = {file: pool.submit(hash_file, file) for file in sorted(listed, key=_size, reverse=True)}
        return [found[file].result() for file in listed]


def are_unchanged(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Tell whether a folder has all these files, each with its SHA-256."""
    files = [folder / name for name in hashes]
    return all(file.is_file() for file in files) and hash_files(files) == list(hashes.values())


def _size(file: Path) -> int:
    return file.stat().st_size


def hash_samples(file: Path) -> str:
    """Return the SHA-256 of a large file's size and of thirty-two samples over it, hexadecimal.

    It sees any fine-tuning of a model's weights; it does not see single bytes changed on purpose.
    """
    size = file.stat().st_size
    hasher = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        for n in range(_SAMPLES):
            opened.seek(n * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
            hasher.update(opened.read(_SAMPLE_BYTES))
    return hasher.hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
