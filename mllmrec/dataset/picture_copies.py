"""Copy a shop's pictures into a dataset, each under the hash of its content, and only what is a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mllmrec.foundation import digests, storage
from mllmrec.foundation.images import ENDINGS, MOST_FILE_BYTES, ImageRefusedError, image_kind
from mllmrec.foundation.progress import Progress

_OTHER_ENDINGS = {"JPEG": ("jpeg", "jpe", "jfif")}
_REASONS = 3  # reasons that are listed, the commonest first


@dataclass(slots=True)
class _LeftOut:
    """The files that were not copied, by reason."""

    missing: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def warnings(self) -> list[str]:
        lines = [f"{self.missing} image files are missing"] if self.missing else []
        if self.unreadable:
            lines.append(f"{self.unreadable.total()} image files cannot be read ({_commonest(self.unreadable)})")
        if self.refused:
            lines.append(f"{self.refused.total()} image files are no usable pictures ({_commonest(self.refused)})")
        return lines


def _commonest(reasons: Counter[str]) -> str:
    listed = [f"{count} x {reason}" for reason, count in reasons.most_common(_REASONS)]
    return "; ".join([*listed, *(["..."] if len(reasons) > _REASONS else [])])


def copy_pictures(lists: pl.Series, folder: Path, progress: Progress) -> tuple[pl.Series, list[str]]:
    """Copy each item's pictures; equal ones are kept once.

    Args:
        lists: [I] lists of local files.
        folder: where the pictures go; it is created with the first.
        progress: called with the number of items that are done.

    Returns:
        [I] lists of names as `images/<sha256>.<ending>`, and one line for each kind of file that was left out.

    Raises:
        StorageError: the folder cannot be written to.
    """
    rows, left_out, copied = lists.to_list(), _LeftOut(), []
    for n, row in enumerate(rows, start=1):
        names = [_copy(Path(file), folder, left_out) for file in row or ()]
        copied.append([f"images/{name}" for name in names if name])
        if n % 100 == 0 or n == len(rows):
            progress("copy images", n, len(rows))
    return pl.Series("images", copied, dtype=pl.List(pl.String)), left_out.warnings


def _copy(file: Path, folder: Path, left_out: _LeftOut) -> str:
    """Return the name of the copy, or nothing if the file is left out."""
    try:
        with storage.open_regular(file) as source:
            data = source.read(MOST_FILE_BYTES + 1)
        name = f"{digests.hash_bytes(data)}.{_ending(file, image_kind(data))}"
    except (FileNotFoundError, NotADirectoryError):
        left_out.missing += 1
        return ""
    except OSError as error:
        left_out.unreadable[error.strerror or str(error)] += 1
        return ""
    except ImageRefusedError as error:
        left_out.refused[str(error)] += 1
        return ""
    with storage.storage_errors("write", folder / name):
        folder.mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    return name


def _ending(file: Path, kind: str) -> str:
    """Return the ending that a kind of picture has: the file's own where that is one of them."""
    ending = file.suffix.lower()[1:]
    return ending if ending in _OTHER_ENDINGS.get(kind, ()) else ENDINGS[kind]
