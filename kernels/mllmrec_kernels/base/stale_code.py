"""Removal of compiled code that no longer fits its sources.

Numba compiles a function anew when the function's own file has changed. Two changes escape it:

- An index that names a type of a module that is gone cannot be read: the call ends in ModuleNotFoundError.
- A function of another file that was compiled into this one has changed: the old code runs.

So the contents of all source files are noted beside the code. Where they differ, the indices of the functions that
use a changed file, by import or by the types of their arguments, are deleted, and these functions are compiled again.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

State = Mapping[str, Any]  # of each source file: [time of change in ns, bytes, hash of its content]


def remove_stale_code(package: Path, root: Path | None) -> int:
    """Delete the indices of compiled functions whose sources, or those of what they use, have changed.

    Args:
        package: the folder of the source files, named as the package is.
        root: the folder that Numba keeps compiled code in; None: beside the source files.

    Returns:
        How many were deleted. 0 where the folder cannot be written to: Numba keeps its code elsewhere then.
    """
    note = (root or package / "__pycache__") / f"{package.name}-{_hash(str(package).encode())[:12]}.sources.json"
    before = _read(note)
    now = _state(package, before)
    if now == before:
        return 0
    modules = {_module(package, path): path for path in now}
    changed = {name for name, path in modules.items() if before and before.get(path, [None])[-1] != now[path][-1]}
    stale = _users_of(changed, {name: _imports(package / path, modules) for name, path in modules.items()})
    removed = 0
    with contextlib.suppress(OSError):
        for name, index in _indices(package, root, modules):
            named = {word.decode() for word in re.findall(package.name.encode() + rb"(?:\.\w+)+", index.read_bytes())}
            if name in stale or not named.isdisjoint(changed) or not named <= modules.keys():
                index.unlink()
                removed += 1
        _write(note, now)
    return removed


def _state(package: Path, before: State) -> State:
    """Return the state of every source file; a file of the same time and size is not read again."""
    state = {}
    for path in sorted(package.rglob("*.py")):
        name, found = str(path.relative_to(package)), path.stat()
        stamp = [found.st_mtime_ns, found.st_size]
        known = before.get(name, [])
        state[name] = known if known[:2] == stamp else [*stamp, _hash(path.read_bytes())]
    return state


def _hash(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _read(note: Path) -> State:
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(note: Path, state: State) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    partial = note.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(state))
    partial.replace(note)


def _module(package: Path, path: str) -> str:
    parts = Path(path).with_suffix("").parts
    return ".".join((package.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _imports(path: Path, modules: Mapping[str, str]) -> set[str]:
    """Return the modules of the package that a source file imports, or imports names of."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & modules.keys()


def _users_of(changed: set[str], imports: Mapping[str, set[str]]) -> set[str]:
    """Return the changed modules, those that import them, those that import these, and so on."""
    users, found = set(changed), set(changed)
    while found:
        found = {name for name, used in imports.items() if name not in users and not used.isdisjoint(found)}
        users |= found
    return users


def _indices(package: Path, root: Path | None, modules: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield each module and index of one of its functions; Numba names both the folder and the file."""
    for name, path in modules.items():
        source = package / path
        folder = source.parent / "__pycache__"
        if root is not None:
            folder = root / f"{source.parent.name}_{_hash(str(source.parent).encode())}"
        for index in sorted(folder.glob(f"{source.stem}.*.nbi")):
            yield name, index
