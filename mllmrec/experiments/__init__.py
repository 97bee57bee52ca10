"""Compare models, or vary one setting of one, in one protocol: tuned on validation alone, paired bootstrap."""

from mllmrec.experiments.comparison import Comparison
from mllmrec.experiments.entries import ENTRIES, Entry, choose_entries
from mllmrec.experiments.grids import Point
from mllmrec.experiments.protocol import compare_models
from mllmrec.experiments.studies import STUDIES, Study, find_study
from mllmrec.experiments.study import run_study
from mllmrec.experiments.study_result import Contrast, Result

__all__ = [
    "ENTRIES",
    "STUDIES",
    "Comparison",
    "Contrast",
    "Entry",
    "Point",
    "Result",
    "Study",
    "choose_entries",
    "compare_models",
    "find_study",
    "run_study",
]
