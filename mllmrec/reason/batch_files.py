"""Write chat requests as files of the OpenAI batch format, and read the results back into the cache.

For `vllm run-batch` and paid batch interfaces; the stage then finds its answers in the cache. The custom_id of a row
is the cache key of its request, so the order of results means nothing. Items without a usable picture get no row: they
are text only. A request refused for good is unusable. Neither is sent again, so the stage ends without a server.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from mllmrec.config import Config, DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.readers.reading import read_lines
from mllmrec.dataset.readers.source import Rejected
from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import ConfigError, InputError
from mllmrec.foundation import storage
from mllmrec.foundation.images import ImageRefusedError
from mllmrec.reason import describe, profile
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.chat import ChatDescriber, ChatProfiler, to_answer, usable_request, with_reason
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer, ChatRequest, Reply
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.generate import open_requests
from mllmrec.reason.requests import Engines, server_config

MAX_LINES, MAX_BYTES = 50_000, 200_000_000
"""The largest file that the OpenAI batch interface takes."""
_Stage = tuple[str, str, dict[str, ChatRequest]]  # label, fingerprint, requests by cache key
_MISSING = Reply("", "failed", "the results hold no row for this request")


@dataclass(frozen=True, slots=True)
class BatchResults:
    """The contents of a results file.

    Attributes:
        replies: one for every expected key, in order.
        missing: expected keys without a row.
        failed: rows whose request failed, refused ones included.
        doubled: rows of a key that had a row already; the first that did not fail counts.
        foreign: rows of keys that were not expected.
        unreadable: lines that are no result, as a cut last line is not.
        without_picture: requests without a usable picture.
    """

    replies: dict[str, Reply]
    missing: int
    failed: int
    doubled: int
    foreign: int
    unreadable: int
    without_picture: int = 0

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        answered = sum(reply.finish in ("stop", "length") for reply in self.replies.values())
        refused = sum(reply.finish == "refused" for reply in self.replies.values())
        counts = {
            "missing": self.missing,
            "failed": self.failed,
            "refused for good": refused,
            "doubled": self.doubled,
            "foreign": self.foreign,
            "unreadable": self.unreadable,
            "without a usable picture": self.without_picture,
        }
        parts = [f", {count:,} {name}" for name, count in counts.items() if count]
        left = self.missing + sum(reply.finish == "failed" for reply in self.replies.values() if reply is not _MISSING)
        rest = f"; {left:,} are still open: the server gets them now, or --batch-out writes them" if left else ""
        return f"{answered:,} of {len(self.replies):,} requests answered{''.join(parts)}{rest}"


class BatchStage:
    """A stage whose requests are answered outside of this process.

    Args:
        dataset: the catalogue and its histories.
        config: of the whole run; the stage's engine must be "openai".
        cache: of generations.
        descriptions: None for the describe stage; its result, for the profile stage.
        retry_failed: write requests again whose answers could not be used.

    Raises:
        ConfigError: the engine is another, or the stage generates no texts.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        cache: GenerationCache,
        descriptions: Descriptions | None,
        *,
        retry_failed: bool = False,
    ) -> None:
        self._cache, self._retry_failed = cache, retry_failed
        stage: DescribeConfig | ProfileConfig = config.describe if descriptions is None else config.profile
        if stage.engine != "openai":
            raise ConfigError(f'batch files are for engine = "openai"; the stage has "{stage.engine}"')
        self._server = server_config(config, stage, stage.model or config.describe.model)
        engines = Engines(config, dataset)
        if descriptions is None:
            self._label, self._fingerprint, keyed = _describe_requests(engines, dataset, config)
        else:
            self._label, self._fingerprint, keyed = _profile_requests(engines, dataset, config, descriptions)
        self._open, self._requests = (open_requests(keyed, cache, retry_failed=every) for every in (False, True))

    def write(self, path: Path) -> tuple[int, int]:
        """Write what the cache cannot answer.

        Returns:
            The number of requests, and of those without a usable picture, which are recorded as text only.
        """
        refused: dict[str, str] = {}
        requests = self._requests if self._retry_failed else self._open
        written = write_batch(requests, path, self._server, refused=refused)
        self._keep({key: Answer("", "text-only", reason) for key, reason in refused.items()})
        return written, len(refused)

    def read(self, path: Path) -> str:
        """Take the results of a batch into the cache; return one line that counts them."""
        results = read_results(path, self._requests)
        answers: dict[str, Answer] = {}
        without_picture = 0
        # An unusable answer of an earlier batch stays where this one has no row for it.
        replies = {key: reply for key, reply in results.replies.items() if key in self._open or reply is not _MISSING}
        for key, reply in replies.items():
            request = self._requests[key]
            answers[key] = to_answer(reply, request)
            # One picture that was answered opens; of several some may not, and the row was written without them.
            if request.images and (reply is _MISSING or len(request.images) > 1):
                usable, reason = usable_request(request)
                if usable is None:
                    answers[key] = Answer("", "text-only", reason)
                    without_picture += 1
                elif reason and reply is not _MISSING:
                    answers[key] = with_reason(answers[key], reason)
        self._keep(answers)
        missing = sum(reply is _MISSING for reply in replies.values()) - without_picture
        return replace(results, replies=replies, missing=missing, without_picture=without_picture).summary

    def _keep(self, answers: Mapping[str, Answer]) -> None:
        """Put answers into the cache, but for failed ones, which another attempt may mend."""
        final = {key: answer for key, answer in answers.items() if answer.status != "failed"}
        self._cache.put(final, question=self._label, engine=self._fingerprint)


def _describe_requests(engines: Engines, dataset: Dataset, config: Config) -> _Stage:
    engine = engines.describer
    assert isinstance(engine, ChatDescriber)
    items = [item for item in catalogue(dataset, images=config.describe.images) if item.images]
    keyed = dict(zip(describe.keys_of(engine, items), map(engine.request, items), strict=True))
    return describe.LABEL, engine.fingerprint, keyed


def _profile_requests(engines: Engines, dataset: Dataset, config: Config, descriptions: Descriptions) -> _Stage:
    engine = engines.profiler(descriptions)
    if not isinstance(engine, ChatProfiler):
        raise ConfigError('batch files hold prompts for texts; set profile.kind to "text"')
    histories = dataset.histories(config.profile.history)
    newest = profile.newest_items(histories, descriptions, config.profile.max_items)
    filled = [history for history in newest if history]
    keyed = dict(zip(profile.keys_of(engine, filled), map(engine.request, filled), strict=True))
    return profile.LABEL, engine.fingerprint, keyed


def write_batch(
    requests: Mapping[str, ChatRequest],
    path: Path,
    config: ChatServerConfig,
    *,
    refused: dict[str, str] | None = None,
    max_lines: int = MAX_LINES,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Write one line per request, and return the number of lines.

    What is beyond the limits goes into x.2.jsonl, x.3.jsonl ...; those of an earlier, longer batch are removed.
    Pictures that do not open are left out; a request where none does has no line.

    Args:
        requests: by custom_id, the cache key.
        path: the first file, whose name ends in .jsonl.
        config: model and decoding; address and key are not written.
        refused: filled with the reason of each request without a line.
        max_lines, max_bytes: of one file.

    Raises:
        InputError, StorageError: the name is another, a request is too large, or the file cannot be written.
    """
    if path.suffix != ".jsonl":
        raise InputError(f"a batch is written as JSON lines: name {path.with_suffix('.jsonl').name}, not {path.name}")
    lines = _lines(requests, config, max_bytes, {} if refused is None else refused)
    line, written, parts = next(lines, None), 0, 0
    while line is not None or not parts:
        parts += 1
        with storage.atomic(_part(path, parts)) as temporary, temporary.open("wb") as file:
            line, count = _fill(file, line, lines, max_lines, max_bytes)
        written += count
    while (later := _part(path, parts := parts + 1)).is_file():
        later.unlink()
    return written


def _part(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_suffix(f".{number}.jsonl")


def _lines(
    requests: Mapping[str, ChatRequest], config: ChatServerConfig, max_bytes: int, refused: dict[str, str]
) -> Iterator[bytes]:
    for key, request in requests.items():
        body = _body(request, config)
        if isinstance(body, str):
            refused[key] = body
            continue
        row = {"custom_id": key, "method": "POST", "url": f"/v1{form.CHAT_PATH}", "body": body}
        line = (json.dumps(row) + "\n").encode()
        if len(line) > max_bytes:
            raise InputError(
                f"request {key} has {len(line):,} bytes, more than a batch file may have; lower image_side"
            )
        yield line


def _body(request: ChatRequest, config: ChatServerConfig) -> Mapping[str, object] | str:
    """Return the body of a request, without pictures that do not open, or why there is none."""
    try:
        return form.chat_body(request, config)
    except ImageRefusedError as error:
        usable, reason = usable_request(request)
        return _body(usable, config) if usable and reason else reason or str(error)


def _fill(
    file: IO[bytes], line: bytes | None, lines: Iterator[bytes], max_lines: int, max_bytes: int
) -> tuple[bytes | None, int]:
    """Write `line` and those after it while they fit; return the first that does not, and how many did."""
    count = size = 0
    while line is not None and count < max_lines and size + len(line) <= max_bytes:
        file.write(line)
        count, size = count + 1, size + len(line)
        line = next(lines, None)
    return line, count


def read_results(path: Path, expected: Collection[str]) -> BatchResults:
    """Match the rows of a results file, or of a folder's .jsonl files in order, to the open requests.

    Raises:
        InputError: there is no such file, or none of its rows belongs to a key that was expected.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"{path} holds no batch results; give the .jsonl that the batch wrote, or its folder")
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
    """Rows as they come, in any order, beside the expected keys."""

    def __init__(self, expected: Collection[str]) -> None:
        self.replies: dict[str, Reply] = dict.fromkeys(expected, _MISSING)
        self.rejected: list[Rejected] = []
        self.failed = self.doubled = self.foreign = 0

    def add(self, where: str, row: Mapping[str, object]) -> None:
        """Take one row of the file `where`."""
        key = row.get("custom_id")
        if not isinstance(key, str):
            self.rejected.append(Rejected(where, "no custom_id"))
            return
        before = self.replies.get(key)
        if before is None:
            self.foreign += 1
            return
        reply = form.read_batch_row(row)
        self.failed += reply.finish in ("failed", "refused")
        self.doubled += before is not _MISSING
        if before.finish in ("failed", "refused"):
            self.replies[key] = reply
