"""Chat requests as files of the OpenAI batch format, and the results read back.

For `vllm run-batch` and paid batch interfaces. A row is known by its custom_id, which is the cache key of the
request: the order of a results file means nothing, and what is missing, doubled, foreign or cut shifts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mllmrec.dataset.readers.reading import read_lines
from mllmrec.dataset.readers.source import Rejected
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.images import ImageRefusedError
from mllmrec.reason.chat import ChatRequest, Reply
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.engines.openai_config import ChatServerConfig

MOST_LINES = 50_000
MOST_BYTES = 200_000_000
"""The largest file that the OpenAI batch interface takes."""
_MISSING = Reply("", "failed", "the results hold no row for this request")


@dataclass(frozen=True, slots=True)
class BatchResults:
    """What a results file says.

    Attributes:
        replies: one for every expected key, in the order in which they were expected.
        missing: expected keys without a row.
        failed: rows whose request failed.
        doubled: rows of a key that had a row already; of several the first that did not fail counts.
        foreign: rows of keys that were not expected.
        unreadable: lines that are no result, as a cut last line is not.
    """

    replies: dict[str, Reply]
    missing: int
    failed: int
    doubled: int
    foreign: int
    unreadable: int

    @property
    def summary(self) -> str:
        """One line for a person."""
        answered = sum(reply.finish != "failed" for reply in self.replies.values())
        odd = {"missing": self.missing, "failed": self.failed, "doubled": self.doubled, "foreign": self.foreign}
        told = [f"{count:,} {name}" for name, count in (odd | {"unreadable": self.unreadable}).items() if count]
        return f"{answered:,} of {len(self.replies):,} requests answered" + "".join(f", {part}" for part in told)


def write_batch(
    requests: Mapping[str, ChatRequest],
    path: Path,
    config: ChatServerConfig,
    *,
    most_lines: int = MOST_LINES,
    most_bytes: int = MOST_BYTES,
) -> int:
    """Write one line a request; the number of lines.

    What goes beyond the limits of one file goes into further ones: x.jsonl, x.2.jsonl, x.3.jsonl ... Further
    ones of an earlier, longer batch are removed. A request whose picture cannot be used has no line; it is
    missing in the results.

    Args:
        requests: by custom_id, the cache key.
        path: the first file, whose name ends in .jsonl.
        config: model and decoding; address and key are not written.
        most_lines, most_bytes: limits of one file.

    Raises:
        InputError: the name is another, or one request is larger than a file may be.
        StorageError: the disk refuses.
    """
    if path.suffix != ".jsonl":
        raise InputError(f"a batch is written as JSON lines: name {path.with_suffix('.jsonl').name}, not {path.name}")
    lines = _lines(requests, config, most_bytes)
    line, written, parts = next(lines, None), 0, 0
    while line is not None or not parts:
        parts += 1
        with storage.atomic(_part(path, parts)) as temporary, temporary.open("wb") as file:
            line, count = _fill(file, line, lines, most_lines, most_bytes)
        written += count
    while (later := _part(path, parts := parts + 1)).is_file():
        later.unlink()
    return written


def _part(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_suffix(f".{number}.jsonl")


def _lines(requests: Mapping[str, ChatRequest], config: ChatServerConfig, most_bytes: int) -> Iterator[bytes]:
    for key, request in requests.items():
        try:
            body = form.chat_body(request, config)
        except ImageRefusedError:
            continue
        row = {"custom_id": key, "method": "POST", "url": f"/v1{form.CHAT_PATH}", "body": body}
        line = (json.dumps(row) + "\n").encode()
        if len(line) > most_bytes:
            raise InputError(
                f"request {key} has {len(line):,} bytes, more than a batch file may have; lower image_side"
            )
        yield line


def _fill(
    file: IO[bytes], line: bytes | None, lines: Iterator[bytes], most_lines: int, most_bytes: int
) -> tuple[bytes | None, int]:
    """Write `line` and what follows while it fits; the first that does not, and how many did."""
    count = size = 0
    while line is not None and count < most_lines and size + len(line) <= most_bytes:
        file.write(line)
        count, size = count + 1, size + len(line)
        line = next(lines, None)
    return line, count


def read_batch(path: Path, expected: Collection[str]) -> dict[str, Reply]:
    """The reply of every expected key, failed where the results have none; see `read_results`."""
    return read_results(path, expected).replies


def read_results(path: Path, expected: Collection[str]) -> BatchResults:
    """Match the rows of a results file to what was asked.

    Args:
        path: a results file, or a folder whose .jsonl files are read in the order of their names.
        expected: the custom_ids that were asked for.

    Raises:
        InputError: there is no such file, or none of its rows belongs to a key that was expected.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"{path} holds no batch results; wanted the .jsonl that the batch wrote, or its folder")
    match = _Match(expected)
    for file in files:
        for _, row in read_lines(file, match.rejected):
            match.add(file.name, row)
    missing = sum(reply is _MISSING for reply in match.replies.values())
    if match.replies and missing == len(match.replies):
        raise InputError(
            f"{path}: none of its {match.foreign} readable results answers a request of this run; were they made "
            "from another dataset, prompt or model?"
        )
    counts = match.failed, match.doubled, match.foreign, len(match.rejected)
    return BatchResults(match.replies, missing, *counts)


class _Match:
    """Rows as they come, in any order, beside what was expected."""

    def __init__(self, expected: Collection[str]) -> None:
        self.replies: dict[str, Reply] = dict.fromkeys(expected, _MISSING)
        self.rejected: list[Rejected] = []
        self.failed = self.doubled = self.foreign = 0

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        key = row.get("custom_id")
        if not isinstance(key, str):
            self.rejected.append(Rejected(where, "no custom_id"))
            return
        before = self.replies.get(key)
        if before is None:
            self.foreign += 1
            return
        reply = _reply(row)
        self.failed += reply.finish == "failed"
        self.doubled += before is not _MISSING
        if before.finish == "failed":
            self.replies[key] = reply


def _reply(row: Mapping[str, Any]) -> Reply:
    """What one row says: a completion, or why there is none."""
    response = row.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    status = response.get("status_code") if isinstance(response, Mapping) else None
    if row.get("error") or status not in (None, 200):
        words = form.said(row if row.get("error") else body)
        return Reply("", "failed", f"HTTP status {status}: {words}" if status else words)
    try:
        return form.read_completion(body)
    except form.NotACompletionError as error:
        return Reply("", "failed", str(error))
