"""Files -> Dataset: readers, cleaning, splits, and the folder they end in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mllmrec.dataset.dataset import Dataset, Histories
from mllmrec.dataset.preparation import PrepareOptions, prepare
from mllmrec.dataset.readers.columns import parse_columns
from mllmrec.dataset.store import load
from mllmrec.dataset.summary import Statistics, statistics
from mllmrec.dataset.update import update

if TYPE_CHECKING:
    from mllmrec.dataset.download import DownloadLimits, ImageDownloader

__all__ = [
    "Dataset",
    "DownloadLimits",
    "Histories",
    "ImageDownloader",
    "PrepareOptions",
    "Statistics",
    "load",
    "parse_columns",
    "prepare",
    "statistics",
    "update",
]


def __getattr__(name: str) -> Any:
    """Load the downloader when it is first used: its HTTP client is part of an extra.

    Raises:
        ConfigError: the extra is not installed.
    """
    if name not in ("DownloadLimits", "ImageDownloader"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mllmrec.errors import require_extra

    require_extra("httpx", "web", "downloading pictures")
    from mllmrec.dataset import download

    return getattr(download, name)
