"""Small grids of MLLMRec's settings, judged on validation alone; a table, a picture, and what they mean."""

from mllmrec.study.grids import Point
from mllmrec.study.result import Contrast, Result, Row
from mllmrec.study.run import run_study
from mllmrec.study.studies import STUDIES, Study, find_study

__all__ = ["STUDIES", "Contrast", "Point", "Result", "Row", "Study", "find_study", "run_study"]
