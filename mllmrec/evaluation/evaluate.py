"""Evaluate models by full ranking, in one protocol.

Every item of the catalogue is ranked except the user's training items. By default validation items stay
rankable at test time, as in the field's published tables; `evaluate.mask_validation` takes them out.
Evaluated are the users with a held-out and a training item. Per-user values are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.config import LEAKY, EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.evaluation import metrics
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent, under
from mllmrec.foundation.tables import read_table

HeldOut = Literal["valid", "test"]
SPLITS: tuple[HeldOut, ...] = ("valid", "test")


class Ranker(Protocol):
    """A model that ranks held-out items."""

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the 0-based rank of each held-out item among the items that are not excluded.

        Args:
            exclude: [U, I], items that are not ranked; disjoint from `heldout`.
            heldout: [U, I], items to rank; of equal scores the lower id ranks first.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.

        Returns:
            int32 [heldout.nnz], in the order of `heldout`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of each model on each held-out split.

    Attributes:
        leaky: whether the model's profiles saw held-out interactions.
        means: split -> model -> metric -> mean over the evaluated users; NaN without users.
        users: split -> number of users evaluated.
        per_user: id, split, model, and a column a metric; the evaluated users.
        heldout: user, item, and a column a model: its 0-based rank of that held-out test item, int32.
    """

    leaky: bool
    means: Mapping[str, Mapping[str, Mapping[str, float]]]
    users: Mapping[str, int]
    per_user: pl.DataFrame
    heldout: pl.DataFrame

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        if self.unjudged:
            return "no metrics: nobody to judge on the test split"
        models, users = len(self.means["test"]), self.users["test"]
        return f"{models} models on {users:,} test users{', LEAKY' if self.leaky else ''}"

    @property
    def unjudged(self) -> str:
        """Return why no model can be judged on the test split; empty where one can."""
        return "" if self.users["test"] else nobody_to_judge("test")

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write metrics.json (null where nobody is judged), per_user.parquet and heldout.parquet."""
        notes = {"leaky": self.leaky, "users": self.users, "metrics": self.means}
        storage.write_json(path("metrics.json"), storage.nulled(notes))
        storage.write_table(path("per_user.parquet"), self.per_user, notes={"leaky": str(self.leaky)})
        storage.write_table(path("heldout.parquet"), self.heldout, notes={"leaky": str(self.leaky)})
        return ["metrics.json", "per_user.parquet", "heldout.parquet"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Evaluation:
        """Read what save wrote.

        Raises:
            MismatchError: a file is missing.
        """
        notes = storage.read_json(path("metrics.json"))
        if not path("heldout.parquet").is_file():
            raise MismatchError(f"{path('heldout.parquet')} is missing; evaluate again with mllmrec evaluate")
        means = {
            split: {
                model: {name: value if notes["users"][split] else math.nan for name, value in values.items()}
                for model, values in models.items()
            }
            for split, models in notes["metrics"].items()
        }
        per_user, heldout = (read_table(path(name), {}) for name in ("per_user.parquet", "heldout.parquet"))
        return Evaluation(notes["leaky"], means, notes["users"], per_user, heldout)


def evaluate_models(
    models: Mapping[str, Ranker],
    dataset: Dataset,
    config: EvaluateConfig,
    *,
    leaky: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate models on the validation and the test split.

    Args:
        models: fitted models by the name that tables print.
        dataset: the split.
        config: cutoffs and protocol.
        leaky: mark the result.
        progress: told before and after each model.
    """
    means: dict[str, dict[str, dict[str, float]]] = {}
    users: dict[str, int] = {}
    frames: list[pl.DataFrame] = []
    ranked = pl.DataFrame()
    for split in SPLITS:
        heldout, exclude = protocol(dataset, split, config)
        evaluated = np.flatnonzero(np.diff(heldout.indptr) > 0)
        users[split], means[split] = len(evaluated), {}
        ranked = pl.DataFrame(
            {"user": dataset.users.gather(heldout.rows()), "item": dataset.item_ids.gather(heldout.indices)}
        )
        progress(f"evaluate on {split}", 0, len(models))
        for n, (name, model) in enumerate(models.items(), start=1):
            ranks = model.ranks(exclude, heldout, progress=under(progress, f"rank {split} by {name}"))
            ranked = ranked.with_columns(pl.Series(name, ranks))
            values = metrics.per_user(ranks, heldout.indptr, config.cutoffs)
            values = {metric: value[evaluated] for metric, value in values.items()}
            means[split][name] = metrics.mean(values)
            identity: dict[str, Any] = {"id": dataset.users.gather(evaluated), "split": split, "model": name}
            frames.append(pl.DataFrame(identity | values))
            progress(f"evaluate on {split}", n, len(models))
    return Evaluation(leaky, means, users, pl.concat(frames), ranked)  # of the last split, which is test


def protocol(dataset: Dataset, split: HeldOut, config: EvaluateConfig) -> tuple[CSR, CSR]:
    """Return what is ranked on a split: held-out items of users with training items, and items left out.

    Args:
        dataset: the split.
        split: whose interactions are held out.
        config: whether validation items are left out at test time.

    Returns:
        Two binary [U, I] matrices, disjoint.
    """
    heldout, train = dataset.matrix(split), dataset.train
    owners = heldout.rows()
    known = np.diff(train.indptr)[owners] > 0
    ranked = CSR.from_pairs(owners[known], heldout.indices[known], heldout.shape)
    if split == "test" and config.mask_validation:
        both = train.to_scipy() + dataset.matrix("valid").to_scipy()
        return ranked, CSR.from_scipy(both, binary=True)
    return ranked, train


def nobody_to_judge(split: HeldOut) -> str:
    """Return the sentence for a split without users to judge."""
    part = {"valid": "validation", "test": "test"}[split]
    return f"nobody can be judged on the {part} split, for no user has both a training and a {part} interaction"


def title(split: HeldOut, *, leaky: bool) -> str:
    """Return the heading of a results table."""
    return f"{LEAKY}: profiles saw held-out items ({split})" if leaky else f"{split} split, full ranking"
