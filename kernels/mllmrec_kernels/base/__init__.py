"""Support of every kernel: sparse matrices, errors, backends, compilation, threads.

The folder in which Numba keeps compiled code is chosen here, before the first function is declared for compilation.
Numba looks beside the source files and in the user's cache. It refuses to import if it may write to neither, as in a
container with a read-only package and no home. Then a private folder for temporary files takes their place.

Code that no longer fits its sources is removed there first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from mllmrec_kernels.base.stale_code import remove_stale_code

_VARIABLE = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).resolve().parents[1]


def choose_folder(package: Path = _PACKAGE) -> str:
    """Make sure that compiled code can be kept and fits; name a folder in $NUMBA_CACHE_DIR if there is none.

    Args:
        package: the folder of the source files.

    Returns:
        The place, for a person: a folder, with the reason if it is a fallback.
    """
    if named := os.environ.get(_VARIABLE):
        remove_stale_code(package, Path(named))
        return f"{named} (${_VARIABLE})"
    if all(os.access(place, os.W_OK | os.X_OK) for place in _source_folders(package)):
        remove_stale_code(package, None)
        return f"{package}, beside the source files"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    user = Path(os.path.expanduser(base))  # noqa: PTH111 - Path.expanduser raises if there is no home
    if user.is_absolute() and _is_writable(user):
        remove_stale_code(package, user / "numba")
        return f"{user}, the package cannot be written to"
    os.environ[_VARIABLE] = folder = _temporary_folder()
    remove_stale_code(package, Path(folder))
    return f"{folder}, neither the package nor a home can be written to; set ${_VARIABLE} to keep it elsewhere"


def _source_folders(package: Path) -> list[Path]:
    folders = [package, *(path for path in package.iterdir() if path.is_dir() and path.name != "__pycache__")]
    return [cache if (cache := folder / "__pycache__").is_dir() else folder for folder in folders]


def _is_writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _temporary_folder() -> str:
    """Return a folder of this user's that nobody else can write to; Numba runs what it finds there."""
    folder = Path(tempfile.gettempdir()) / f"mllmrec-code-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        found = None
    if found and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return str(folder)
    private = tempfile.mkdtemp(prefix="mllmrec-code-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private


CODE_FOLDER = choose_folder()  # before the first function is declared for compilation
