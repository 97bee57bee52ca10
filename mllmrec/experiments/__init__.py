"""Compare models, or vary one setting of one: tuned on validation, judged in one protocol, paired by user."""

from mllmrec.experiments.compare import compare_models
from mllmrec.experiments.draws import SplitTable, compare_splits
from mllmrec.experiments.entries import ENTRIES, Entry, choose_entries, first_settings
from mllmrec.experiments.grid import GridPoint
from mllmrec.experiments.judge import Difference
from mllmrec.experiments.study import STUDIES, Study, find_study, run_study
from mllmrec.experiments.table import Result, Row

__all__ = [
    "ENTRIES",
    "STUDIES",
    "Difference",
    "Entry",
    "GridPoint",
    "Result",
    "Row",
    "SplitTable",
    "Study",
    "choose_entries",
    "compare_models",
    "compare_splits",
    "find_study",
    "first_settings",
    "run_study",
]
