"""Files -> Dataset: readers, cleaning, splits, and the folder they end in."""

from mllmrec.dataset.dataset import Dataset, Histories
from mllmrec.dataset.download import DownloadLimits, ImageDownloader
from mllmrec.dataset.preparation import PrepareOptions, prepare
from mllmrec.dataset.readers.columns import parse_columns
from mllmrec.dataset.store import load
from mllmrec.dataset.summary import Statistics, statistics

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
]
