"""Stage 6: the model beside its yardsticks, by full ranking, in one protocol (method section 5).

Every item of the catalogue is ranked but the user's training items. By default validation items stay
rankable at test time, as the field's published tables have it; `evaluate.mask_validation` takes them out.
Evaluated are the users with a held-out and a training item. Per-user values are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.evaluation import metrics
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent, under
from mllmrec.runs import LEAKY

HeldOut = Literal["valid", "test"]


class Ranker(Protocol):
    """A model that ranks held-out items."""

    def ranks(self, exclude: CSR, heldout: CSR, *, progress: Progress = silent) -> NDArray[np.int32]:
        """Return the 0-based rank of each held-out item among the items that are not excluded.

        Args:
            exclude: [U, I], items that are not ranked; disjoint from `heldout`.
            heldout: [U, I], items to rank; of equal scores the lower id ranks first.
            progress: called after each block of users.

        Returns:
            int32 [heldout.nnz], in the order of `heldout`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What each model reaches on each held-out split.

    Attributes:
        leaky: whether the model's profiles saw held-out interactions.
        means: split -> model -> metric -> mean over the evaluated users.
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
        """One line for a person."""
        models, users = len(self.means["test"]), self.users["test"]
        return f"{models} models on {users:,} test users{', LEAKY' if self.leaky else ''}"

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write metrics.json, per_user.parquet and heldout.parquet."""
        notes = {"leaky": self.leaky, "users": self.users, "metrics": self.means}
        storage.write_json(path("metrics.json"), notes)
        storage.write_table(path("per_user.parquet"), self.per_user, notes={"leaky": str(self.leaky)})
        storage.write_table(path("heldout.parquet"), self.heldout, notes={"leaky": str(self.leaky)})
        return ["metrics.json", "per_user.parquet", "heldout.parquet"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Evaluation:
        """Read what save wrote.

        Raises:
            MismatchError: an earlier version wrote it, which kept no ranks.
        """
        notes = storage.read_json(path("metrics.json"))
        if not path("heldout.parquet").is_file():
            raise MismatchError(f"{path('heldout.parquet')} is missing; judge again with mllmrec evaluate")
        per_user, heldout = (pl.read_parquet(path(name)) for name in ("per_user.parquet", "heldout.parquet"))
        return Evaluation(notes["leaky"], notes["metrics"], notes["users"], per_user, heldout)


def evaluate_models(
    models: Mapping[str, Ranker],
    dataset: Dataset,
    config: EvaluateConfig,
    *,
    leaky: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Judge models on the validation and the test split.

    Args:
        models: what to judge, by the name that tables print.
        dataset: the split.
        config: cutoffs and protocol.
        leaky: mark the result.
        progress: told after each model.
    """
    means: dict[str, dict[str, dict[str, float]]] = {}
    users: dict[str, int] = {}
    frames: list[pl.DataFrame] = []
    ranked = pl.DataFrame()
    splits: tuple[HeldOut, ...] = ("valid", "test")
    for split in splits:
        heldout, exclude = protocol(dataset, split, config)
        judged = np.flatnonzero(np.diff(heldout.indptr) > 0)
        users[split], means[split] = len(judged), {}
        ranked = pl.DataFrame(
            {"user": dataset.users.gather(heldout.rows()), "item": dataset.item_ids.gather(heldout.indices)}
        )
        for n, (name, model) in enumerate(models.items(), start=1):
            ranks = model.ranks(exclude, heldout, progress=under(progress, f"rank {split} by {name}"))
            ranked = ranked.with_columns(pl.Series(name, ranks))
            values = metrics.per_user(ranks, heldout.indptr, config.cutoffs)
            values = {metric: value[judged] for metric, value in values.items()}
            means[split][name] = metrics.mean(values)
            identity: dict[str, Any] = {"id": dataset.users.gather(judged), "split": split, "model": name}
            frames.append(pl.DataFrame(identity | values))
            progress(f"evaluate on {split}", n, len(models))
    return Evaluation(leaky, means, users, pl.concat(frames), ranked)  # of the last split, which is test


def protocol(dataset: Dataset, split: HeldOut, config: EvaluateConfig) -> tuple[CSR, CSR]:
    """(held-out items of the users that have training items, items that may not be ranked)."""
    heldout, train = dataset.matrix(split), dataset.train
    owners = heldout.rows()
    known = np.diff(train.indptr)[owners] > 0
    judged = CSR.from_pairs(owners[known], heldout.indices[known], heldout.shape)
    if split == "test" and config.mask_validation:
        both = train.to_scipy() + dataset.matrix("valid").to_scipy()
        return judged, CSR.from_scipy(both, binary=True)
    return judged, train


def title(split: HeldOut, *, leaky: bool) -> str:
    """Heading of a table of results."""
    return f"{LEAKY}: profiles saw held-out items ({split})" if leaky else f"{split} split, full ranking"
