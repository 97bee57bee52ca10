"""All models in one protocol and one table: tuned on validation alone, several seeds, paired bootstrap."""

from mllmrec.compare.comparison import Comparison, Row
from mllmrec.compare.entries import ENTRIES, Entry, choose_entries
from mllmrec.compare.protocol import compare_models

__all__ = ["ENTRIES", "Comparison", "Entry", "Row", "choose_entries", "compare_models"]
