"""Read what a shop knows of users without history: a text, categories. Their lists are the items nearest to it.

A row has a user, and a text, categories, or both. They are encoded as an item's document is. The score of an item is
the cosine of its vector to the user's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mllmrec.config import EncodeConfig
from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.files import check_format
from mllmrec.dataset.readers.formats import Reading, read_objects
from mllmrec.dataset.readers.source import Rejects
from mllmrec.dataset.readers.values import id_fault, read_id
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.progress import Progress, silent
from mllmrec.serving import require_encoder

TEXT, CATEGORIES = "text", "categories"  # columns


@dataclass(frozen=True, slots=True)
class UserTexts:
    """Texts of a file.

    Attributes:
        table: columns user and text, a row per user, by first appearance.
        notes: one line each, of what was read and left out.
    """

    table: pl.DataFrame
    notes: tuple[str, ...]


def read_user_texts(file: Path, columns: Mapping[str, str] | None = None, *, max_rejected: float = 0.05) -> UserTexts:
    """Read what is known of users, from any format that `mllmrec prepare` reads.

    Args:
        file: columns user, and text or categories.
        columns: "user" names another column of users.
        max_rejected: share of the file's rows that may be left out, in [0, 1].

    Raises:
        InputError: the file cannot be read, lacks a column, or too many of its rows are left out.
    """
    check_format(file)
    rejects, user, known = Rejects(max_rejected), (columns or {}).get("user", "user"), dict[str, str]()
    read, header = 0, tuple[str, ...]()
    for line, row in read_objects(file, Reading(rejects)):
        header = header or tuple(row)
        who, words = read_id(row.get(user)), _words(row)
        if who is None or not words:
            reason = id_fault(row.get(user), "user") if who is None else f"neither {TEXT} nor {CATEGORIES}"
            rejects.add(file.name, line, reason)
        else:
            read += 1
            known.setdefault(who, words)
    if not known:
        raise InputError(
            f"{file.name} has no user with a text; columns {', '.join(map(repr, header)) or 'none'}; wanted {user!r}, "
            f"and {TEXT!r} or {CATEGORIES!r}; name the column of users with --column user=NAME"
        )
    rejects.check(file.name, read + rejects.counts[file.name])
    notes = [f"{len(known):,} users with a text in {file.name}", *rejects.notes(named=False)]
    if read > len(known):
        notes.append(f"{read - len(known):,} rows repeat a user; the first of each is kept")
    schema = {"user": pl.String, "text": pl.String}
    return UserTexts(pl.DataFrame({"user": list(known), "text": list(known.values())}, schema=schema), tuple(notes))


def encode_user_texts(texts: list[str], config: EncodeConfig, progress: Progress = silent) -> Vectors:
    """Return unit vectors of texts, float32 [B, d]; empty texts are zero.

    Args:
        texts: one per user.
        config: of the run.
        progress: called while it works.

    Raises:
        InputError: the run's item vectors came with its data, so that there is no encoder.
        EngineError: the encoder cannot be loaded.
    """
    require_encoder(config, "texts of users", "leave --about out")
    encoder = Encoder(config)
    with tempfile.TemporaryDirectory() as parts:
        return encoder.encode([encoder.fit([one])[0] for one in texts], Path(parts), progress, "encode users' texts")


def _words(row: Mapping[str, object]) -> str:
    """Return the text and the categories of a row, in this order; empty if there is neither."""
    sentence = text.clean(row.get(TEXT), text.DESCRIPTION_LENGTH)
    labels = text.parts(row.get(CATEGORIES))
    return ". ".join(part for part in (sentence, ", ".join(labels)) if part)
