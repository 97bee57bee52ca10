"""Exports: the layout of the MMRec toolbox, vectors to serve from, a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mllmrec.dataset import load
from mllmrec.errors import InputError, require_extra
from mllmrec.export.mmrec import export_mmrec
from mllmrec.export.vectors import RANK, export_vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.runs import Run

Form = Literal["mmrec", "vectors", "card"]


def write(
    source: Path,
    out: Path,
    form: Form,
    *,
    run: Path | None = None,
    spreadsheet: bool = False,
    rank: int = RANK,
    progress: Progress = silent,
) -> list[Path]:
    """Write a dataset or a run in one of the forms; return the paths written.

    Args:
        source: a run folder, or for mmrec a dataset folder.
        out: folder.
        form: of the export.
        run: for mmrec from a dataset: the run whose item vectors go along.
        spreadsheet: for mmrec: see export_mmrec.
        rank: for vectors: see export_vectors.
        progress: called while weights are factorized.

    Raises:
        InputError: the form needs another source.
        MllmrecError: as in the function of each form.
    """
    if form == "mmrec":
        return _mmrec(source, out, run, spreadsheet=spreadsheet)
    if run or spreadsheet:
        raise InputError(f"--run and --spreadsheet belong to --format mmrec; for {form} name the run itself, once")
    if not (source / "run.json").is_file() and (source / "manifest.json").is_file():
        raise InputError(f"{source} is a dataset, and {form} are of a trained model; name a run: mllmrec export RUN")
    view = Run(source)
    if form == "vectors":
        return export_vectors(view, out, rank, progress)
    require_extra("huggingface_hub", "card", "export --format card")
    from mllmrec.export.card import export_card

    return [export_card(view, out)]


def _mmrec(source: Path, out: Path, run: Path | None, *, spreadsheet: bool) -> list[Path]:
    own = source if (source / "run.json").is_file() else run
    view = Run(own) if own else None
    features = {"text_feat": view.features.items} if view else {}
    dataset = view.dataset if view and own == source else load(source)
    return export_mmrec(dataset, out, item_features=features, spreadsheet=spreadsheet)
