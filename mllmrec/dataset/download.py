"""Fetch the pictures that a shop names by address.

Addresses come from data, so they are hostile until checked. Only http and https to public hosts are called, at every
hop of a redirect. Bytes, time and hops are limited, and the body must be a picture. An address that gives none costs
that picture alone. It is noted with its reason, and tried again at the next start.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpcore
import httpx
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from mllmrec.dataset.picture_store import FAILED, PictureStore, open_store
from mllmrec.dataset.summary import WITHOUT_PICTURE
from mllmrec.errors import MllmrecError
from mllmrec.foundation.folders import user_cache_folder
from mllmrec.foundation.images import ImageRefusedError
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.web import concurrency
from mllmrec.foundation.web.body import PLAIN, BodyRefusedError, read_body
from mllmrec.foundation.web.concurrency import BUSY, OVERLOADED, ConcurrencyPolicy, Gate, backoff, retry_after
from mllmrec.foundation.web.public import AddressRefusedError, PublicTransport

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "mllmrec", "Accept": "image/*", **PLAIN}
_CONNECTION_ERRORS = (
    httpx.HTTPError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    OSError,
    ValueError,
)
_CONNECT_SECONDS = 10.0
_MOST_WAIT = 60.0  # seconds; a server that requires more is called again at the next start


class DownloadLimits(BaseModel):
    """Limits of one picture, and of the requests at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images_per_item: Annotated[int, Field(gt=0)] = 1
    image_bytes: Annotated[int, Field(gt=0)] = 20 << 20
    seconds: Annotated[float, Field(gt=0)] = 60.0  # one attempt, from the first hop to the last byte
    redirects: Annotated[int, Field(ge=0)] = 5
    attempts: Annotated[int, Field(gt=0)] = 3
    concurrency: Annotated[int, Field(gt=0)] = 16


@dataclass(frozen=True, slots=True)
class Downloads:
    """The outcome of a list of addresses.

    Attributes:
        files: the picture of each address that gave one, now or earlier.
        failed: the reason of each of the others.
        fetched: the number that came over the network this time.
        beyond_limit: the number that was not called, because their items have enough pictures without them.
    """

    files: Mapping[str, Path]
    failed: Mapping[str, str]
    fetched: int
    beyond_limit: int = 0

    @property
    def steps(self) -> dict[str, int]:
        """Return the counts, by the names under which the dataset's statistics show them."""
        return {"image addresses": len(self.files) + len(self.failed), WITHOUT_PICTURE: len(self.failed)}

    @property
    def warnings(self) -> list[str]:
        """Return lines for a person: how many addresses failed, for which reasons, and how many were not called."""
        lines = []
        if self.failed:
            reasons = Counter(self.failed.values()).most_common(3)
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
            lines.append(
                f"{len(self.failed)} of {len(self.failed) + len(self.files)} image addresses gave no picture "
                f"({listed}); the same command with --force tries them again"
            )
        if self.beyond_limit:
            lines.append(f"{self.beyond_limit} further image addresses were not fetched; see --images-per-item")
        return lines


def default_folder() -> Path:
    """Return `$MLLMREC_IMAGES`, or images in the user's cache folder, so that datasets of one shop share pictures."""
    if named := os.environ.get("MLLMREC_IMAGES"):
        return Path(named)
    return user_cache_folder() / "images"


class ImageDownloader:
    """Fetch pictures into a folder; those that lie there are not fetched again.

    Args:
        folder: the pictures' folder, see `picture_store`; by default the one in the user's cache.
        limits: of bytes, time, redirects, attempts and concurrency.
        allow_loopback: only for tests: this machine's own addresses may be called as well.
    """

    def __init__(
        self, folder: Path | None = None, limits: DownloadLimits | None = None, *, allow_loopback: bool = False
    ) -> None:
        self.folder = folder or default_folder()
        self.limits = limits or DownloadLimits()
        self._allow_loopback = allow_loopback

    @property
    def failures(self) -> Path:
        """Return the file with the reasons of addresses that gave no picture."""
        return self.folder / FAILED

    def fetch(self, urls: Iterable[str], progress: Progress = silent) -> Downloads:
        """Fetch each address once.

        Raises:
            StorageError: the folder cannot be written to.
        """
        unique = list(dict.fromkeys(urls))
        with open_store(self.folder, progress) as store:
            known = store.known()
            files = {url: known[url] for url in unique if url in known}
            job = _Job(store, self.limits, progress, [url for url in unique if url not in files])
            try:
                concurrency.run(job.run(allow_loopback=self._allow_loopback))
            finally:
                files |= job.files
                store.report([*files, *job.failed], job.failed)
        return Downloads(files, job.failed, len(job.files))


def add_pictures(
    items: pl.DataFrame, downloader: ImageDownloader, progress: Progress
) -> tuple[pl.DataFrame, Downloads]:
    """Download pictures and append them to each item's local ones, up to the limit per item.

    Args:
        items: rows with `images` and `image_urls`.
        downloader: fetches the addresses.
        progress: called with the number of addresses that are done.

    Returns:
        The table, and which addresses succeeded or failed.

    Raises:
        StorageError: the downloader's folder cannot be written to.
    """
    most = downloader.limits.images_per_item
    local = [row or [] for row in items["images"].to_list()]
    named = [row or [] for row in items["image_urls"].to_list()]
    chosen = [urls[: max(0, most - len(own))] for urls, own in zip(named, local, strict=True)]
    downloads = downloader.fetch((url for urls in chosen for url in urls), progress)
    images = [
        [*own, *(str(downloads.files[url]) for url in urls if url in downloads.files)]
        for own, urls in zip(local, chosen, strict=True)
    ]
    beyond = sum(map(len, named)) - sum(map(len, chosen))
    return items.with_columns(images=pl.Series(images, dtype=pl.List(pl.String))), replace(
        downloads, beyond_limit=beyond
    )


class _RefusedError(MllmrecError):
    """An address that gives no picture, however often it is called."""


class _BusyError(MllmrecError):
    """An address that may give one later."""

    def __init__(self, reason: str, *, wait: float | None = None, overloaded: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.overloaded = overloaded


class _Job:
    """One list of addresses under way."""

    def __init__(self, store: PictureStore, limits: DownloadLimits, progress: Progress, urls: list[str]) -> None:
        self.files: dict[str, Path] = {}
        self.failed: dict[str, str] = {}
        self._store, self._limits, self._progress, self._urls = store, limits, progress, urls

    async def run(self, *, allow_loopback: bool) -> None:
        most = self._limits.concurrency
        self._gate = Gate(ConcurrencyPolicy(most))
        self._transport = PublicTransport(connections=most, allow_loopback=allow_loopback)
        async with self._transport:
            await concurrency.for_each(self._urls, self._one, workers=most)

    async def _one(self, _: int, url: str) -> None:
        try:
            data = await self._persist(url)
            self.files[url] = await asyncio.to_thread(self._store.add, url, data)
        except (_RefusedError, _BusyError, BodyRefusedError, AddressRefusedError, ImageRefusedError) as error:
            self.failed[url] = str(error)
        self._progress("download images", len(self.files) + len(self.failed), len(self._urls))

    async def _persist(self, url: str) -> bytes:
        """Return the body behind an address; call it again while it is busy."""
        for attempt in range(self._limits.attempts):
            try:
                return await self._attempt(url)
            except _BusyError as error:
                wait = error.wait if error.wait is not None else backoff(attempt, seed=0, name=url)
                if attempt + 1 == self._limits.attempts or wait > _MOST_WAIT:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _attempt(self, url: str) -> bytes:
        async with self._gate.enter() as ticket:
            try:
                async with asyncio.timeout(self._limits.seconds):
                    return await self._follow(url)
            except TimeoutError:
                self._gate.overloaded(ticket)
                raise _BusyError(f"not complete within {self._limits.seconds:g} s") from None
            except _CONNECTION_ERRORS as error:
                raise _BusyError(f"the connection failed: {str(error) or type(error).__name__}"[:200]) from error
            except _BusyError as error:
                if error.overloaded:
                    self._gate.overloaded(ticket)
                raise

    async def _follow(self, url: str) -> bytes:
        """Return the body at the end of the redirects."""
        target = _checked(url)
        for _ in range(self._limits.redirects + 1):
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise _RefusedError(f"more than {self._limits.redirects} redirects")

    async def _get(self, target: httpx.URL) -> bytes | httpx.URL:
        """Return the body, or the address of the next hop."""
        request = httpx.Request("GET", target, headers=_HEADERS, extensions={"timeout": self._timeouts()})
        response = await self._transport.handle_async_request(request)
        try:
            status = response.status_code
            if status in _REDIRECTS and "location" in response.headers:
                return _checked(response.headers["location"], base=target)
            if status in BUSY:
                wait = retry_after(response.headers)
                raise _BusyError(f"HTTP status {status}", wait=wait, overloaded=status in OVERLOADED)
            if status != httpx.codes.OK:
                raise _RefusedError(f"HTTP status {status}")
            return await read_body(response, self._limits.image_bytes)
        finally:
            await response.aclose()

    def _timeouts(self) -> dict[str, Any]:
        return httpx.Timeout(self._limits.seconds, connect=_CONNECT_SECONDS).as_dict()


def _checked(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(address) if base is not None else httpx.URL(address)
    except (httpx.InvalidURL, ValueError) as error:
        raise _RefusedError(f"not an address: {str(error)[:100]}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise _RefusedError(f"only http and https are fetched, not {url.scheme[:20] or 'nothing'!r}")
    return url
