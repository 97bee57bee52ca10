"""Write whole folders or none, remove what a killed writer left, and check folders before they are read.

Nobody can tell a folder of one's own from one that was unpacked from an archive. So every run and every dataset is
opened through `open_foreign`, whoever made it; the checks are cheap.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path

from mllmrec.errors import InputError, StorageError
from mllmrec.foundation import storage

_PARTIAL = ".partial"
_ELSEWHERE = (errno.EACCES, errno.EPERM, errno.EROFS)  # of a parent folder that may not be written to


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `path`, on any error it is removed.

    `path` must not exist, or be an empty folder.

    Raises:
        StorageError: the disk is full, the parent is read-only, or the like.
    """
    temporary = path.with_name(storage.temporary_name())
    with storage.storage_errors("write", path):
        storage.make_parents(path.parent)
        temporary.mkdir()
        try:
            yield temporary
            sync_tree(temporary)
            temporary.replace(path)
            with storage.open_folder(path.parent) as folder:
                os.fsync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def replaced_folder(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield an empty folder; on success it takes the place of `path`, on any error the old content stays.

    The new content is put together beside `path` and renamed. That is impossible where `path` is mounted, holds the
    current folder, or has a parent that cannot be written to; then it is put together inside `path`. A link is
    followed. The caller's writers flush their files.

    Args:
        path: the folder; it may be missing.
        names: the files and folders that may be in it; without the first one the folder counts as empty.

    Raises:
        StorageError: the disk refuses, or another process is replacing the same folder.
    """
    with storage.storage_errors("write", path):
        path = path.resolve()
        storage.make_parents(path.parent)
        with ExitStack() as stack:
            building = _building_place(path, stack)
            try:
                yield building
                if building.parent == path:
                    _swap_inside(building, path, names)
                else:
                    _swap_beside(building, path, names)
            finally:
                shutil.rmtree(building, ignore_errors=True)


def _building_place(path: Path, stack: ExitStack) -> Path:
    """Return an empty locked folder beside `path`, or inside it if it must be."""
    current = Path.cwd() if path.exists() else None
    if not os.path.ismount(path) and (current is None or path not in (current, *current.parents)):
        try:
            beside = path.with_name(f".{path.name}{_PARTIAL}")
            stack.enter_context(_locked_folder(beside, path))
        except OSError as error:
            if error.errno not in _ELSEWHERE or not path.is_dir():
                raise
        else:
            return beside
    inside = path / f".mllmrec{_PARTIAL}"
    stack.enter_context(_locked_folder(inside, path))
    return inside


@contextmanager
def _locked_folder(folder: Path, path: Path) -> Iterator[None]:
    """Create a folder, or take over what a killed process left there, and hold a lock on it."""
    with suppress(FileExistsError):
        folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"{path} is being written by another mllmrec process; wait for it to end") from error
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise StorageError(f"{path} was written by another mllmrec process at the same moment; start again")
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _swap_beside(building: Path, path: Path, names: Sequence[str]) -> None:
    if not path.exists():
        building.replace(path)
    else:
        old = path.with_name(storage.temporary_name())
        try:
            path.rename(old)
        except OSError:  # some file systems and permissions let nobody rename a folder that is there
            _swap_inside(building, path, names)
        else:
            try:
                building.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
    with storage.open_folder(path.parent) as folder:
        os.fsync(folder)


def _swap_inside(building: Path, path: Path, names: Sequence[str]) -> None:
    """Exchange the content of `path` name by name; if a step fails, the old content is put back."""
    old, new = path / storage.temporary_name(), path / storage.temporary_name()
    try:
        new.mkdir()
        old.mkdir()
        for name in names:
            if (building / name).exists():
                shutil.move(building / name, new / name)  # copies where `building` lies on another file system
        _move(path, old, names)
        try:
            _move(new, path, reversed(names))
        except BaseException:
            _move(path, new, names)
            _move(old, path, reversed(names))
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    with storage.open_folder(path) as folder:
        os.fsync(folder)


def _move(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        if os.path.lexists(source / name):
            (source / name).rename(target / name)


def user_cache_folder() -> Path:
    """Return the folder of this user's caches of mllmrec; it may be missing.

    Raises:
        StorageError: neither $XDG_CACHE_HOME nor a home folder is known.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mllmrec"
    try:
        return Path.home() / ".cache" / "mllmrec"
    except RuntimeError as error:
        raise StorageError(
            "no home folder is known here, so there is no place for caches; set HOME or XDG_CACHE_HOME, or name each "
            "cache by its own option, such as --cache"
        ) from error


def is_temporary(name: str) -> bool:
    """Tell whether a name is one that this module or `storage` gives to unfinished work."""
    return name.startswith(".") and name.endswith((storage.SUFFIX, _PARTIAL))


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder to the disk."""
    for place, _, names, descriptor in os.fwalk(folder):
        for name in names:
            with storage.storage_errors("write", Path(place) / name):
                storage.flush(name, descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed writer left in a folder; the caller holds the folder's lock."""
    with storage.open_folder(folder) as descriptor:
        with os.scandir(descriptor) as entries:
            left = [entry for entry in entries if _is_temporary(entry.name)]
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(folder / entry.name, ignore_errors=True)
            else:
                storage.remove(entry.name, descriptor)


def _is_temporary(name: str) -> bool:
    return name.startswith(storage.PREFIX) and name.endswith(storage.SUFFIX)


MAX_DEPTH = 6  # folders below the one that is opened
_CHECKED_BYTES = 64 << 20  # smaller files are not looked at for holes
_MIN_STORED = 1 / 16  # of a file's bytes, on the disk; a file system's own compression saves less on our files
_UNSIZED = ("images",)  # pictures are many, and each is measured when it is opened

Checks = Callable[[Path], Iterable[str]]


def open_foreign(folder: Path, checks: Checks) -> None:
    """Refuse a folder with links, special files, files of impossible size, or content of another format.

    Args:
        folder: a run or a dataset, from an untrusted source.
        checks: yields one line for each thing that is wrong with the content of the folder's small files.

    Raises:
        InputError: something is wrong; the line says what.
    """
    for problem in find_problems(folder, checks):
        raise InputError(f"{folder} is refused: {problem}")


def find_problems(folder: Path, checks: Checks) -> Iterator[str]:
    """Yield one line for each reason to refuse a folder; links and special files come first."""
    unsafe = list(_walk(folder, "", 0))
    return chain(unsafe, () if unsafe else checks(folder))


def is_bare_name(name: str) -> bool:
    """Tell whether a name stands for a file in the folder that holds it, and nowhere else."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"} and not name.startswith(".")


def _walk(folder: Path, inside: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{inside or '.'} lies more than {MAX_DEPTH} folders deep"
        return
    try:
        entries = os.scandir(folder)
    except OSError as error:
        yield f"{inside or '.'} cannot be read ({error.strerror})"
        return
    with entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                yield f"{name} is a symbolic link, which may lead out of the folder; replace it by what it stands for"
            elif entry.is_dir():
                yield from _walk(Path(entry.path), name, depth + 1)
            elif not entry.is_file():
                yield f"{name} is neither a file nor a folder"
            elif inside not in _UNSIZED:
                yield from _measure(entry, name)


def _measure(entry: os.DirEntry[str], name: str) -> Iterator[str]:
    found = entry.stat(follow_symlinks=False)
    if name.endswith(".json") and found.st_size > storage.MAX_JSON_BYTES:
        yield f"{name} has {found.st_size:,} bytes; a JSON file here has at most {storage.MAX_JSON_BYTES:,}"
    if found.st_size > _CHECKED_BYTES and found.st_blocks * 512 < _MIN_STORED * found.st_size:
        yield f"{name} claims {found.st_size:,} bytes; {found.st_blocks * 512:,} of them are on the disk"
