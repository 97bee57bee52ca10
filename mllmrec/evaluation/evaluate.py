"""Evaluate models by full ranking, in one protocol.

Every item of the catalogue is ranked except the user's training items. By default validation items stay
rankable at test time, as in the field's published tables; `evaluate.mask_validation` takes them out.
Evaluated are the users with a held-out and a training item; cold items and new users are judged apart as well
(groups.py). New users are ranked by popularity, as they are shown (new_users.py). Per-user values are kept.

A user's scores are the same for both splits. So the held-out items of both are ranked in one pass, unless the splits
leave out different items. No metric reads a rank beyond the largest cutoff. So with more than EXACT_USERS test users,
ranks stop being counted at FARTHEST.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from mllmrec_kernels import CSR

from mllmrec.config import LEAKY, EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.groups import FittedRanker, Groups, SplitRanks, SplitTask, rank_tasks
from mllmrec.evaluation.groups import HeldOut as HeldOut
from mllmrec.evaluation.groups import Ranker as Ranker
from mllmrec.evaluation.new_users import AsShown
from mllmrec.evaluation.user_tables import RankedModels
from mllmrec.foundation import storage
from mllmrec.foundation.lazy_table import LazyTable
from mllmrec.foundation.progress import Progress, silent, under

EXACT_USERS = 20_000  # test users whose ranks are counted to the end
FARTHEST = 100  # rank that stands for itself and all beyond, with more test users than that
_PREFERRED = "ndcg@20"  # whose standard error is named
SPLITS: tuple[HeldOut, ...] = ("valid", "test")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of each model on each held-out split.

    Attributes:
        leaky: whether the model's profiles saw held-out interactions.
        means: split -> model -> metric -> mean over the evaluated users; NaN without users.
        users: split -> number of users evaluated.
        user_table: `per_user`, made or read once it is looked at.
        heldout_table: `heldout`, likewise.
        groups: metrics by group; empty if the evaluation is of an earlier version.
        farthest: the rank that stands for itself and all beyond; 0 if all ranks were counted.
        drawn_from: split -> users that these were drawn from; empty if everybody was judged.
    """

    leaky: bool
    means: Mapping[str, Mapping[str, Mapping[str, float]]]
    users: Mapping[str, int]
    user_table: LazyTable
    heldout_table: LazyTable
    groups: Groups = field(default_factory=Groups)
    farthest: int = 0
    drawn_from: Mapping[str, int] = field(default_factory=dict)

    @property
    def per_user(self) -> pl.DataFrame:
        """Return id, split, model, and a column per metric; the evaluated users."""
        return self.user_table.rows

    @property
    def heldout(self) -> pl.DataFrame:
        """Return user, item, and a column per model: its 0-based rank of that held-out test item, int32."""
        return self.heldout_table.rows

    @property
    def metric_names(self) -> list[str]:
        """Return the names of the metrics, such as "ndcg@20"."""
        return list(self.means["test"][self.own_model])

    def release(self) -> None:
        """Drop the rows of the tables that were looked at; they are made or read again."""
        for table in self._tables.values():
            table.release()

    @property
    def _tables(self) -> dict[str, LazyTable]:
        """Return the tables by the names of their files."""
        return {"per_user": self.user_table, "heldout": self.heldout_table, "groups": self.groups.table}

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        if self.unjudged:
            return "no metrics: nobody to judge on the test split"
        cut = f", ranks counted to {self.farthest:,}" if self.farthest else ""
        return f"{len(self.means['test'])} models on {self.judged}{cut}{', LEAKY' if self.leaky else ''}"

    @property
    def judged(self) -> str:
        """Return who was judged on the test split; of drawn users with the standard error of the last model's NDCG."""
        users = f"{self.users['test']:,}"
        if not self.drawn_from:
            return f"{users} test users"
        metric = sorted((name for name in self.metric_names if name.startswith("ndcg@")), key=_PREFERRED.__eq__)[-1]
        error = metrics.standard_error(self.rows_of(self.own_model)[metric].to_numpy())
        written = metrics.written(metric)
        return f"{users} of {self.drawn_from['test']:,} test users, standard error of {written} {error:.4f}"

    @property
    def own_model(self) -> str:
        """Return the name of the last model, which is the run's own."""
        return list(self.means["test"])[-1]

    def rows_of(self, model: str, split: HeldOut = "test") -> pl.DataFrame:
        """Return the rows of `per_user` of one model on one split, in the order of the users."""
        return self.per_user.filter((pl.col("split") == split) & (pl.col("model") == model))

    @property
    def unjudged(self) -> str:
        """Return why no model can be judged on the test split; empty if one can."""
        return "" if self.users["test"] else nobody_to_judge("test")

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write metrics.json (null if nobody is judged), per_user.parquet, heldout.parquet and groups.parquet."""
        groups = self.groups.as_dict()
        limited: dict[str, Any] = {"farthest_rank": self.farthest} if self.farthest else {}
        limited |= {"drawn_from": dict(self.drawn_from)} if self.drawn_from else {}
        content = {"leaky": self.leaky, "users": self.users, "metrics": self.means, "groups": groups, **limited}
        storage.write_json(path("metrics.json"), storage.nulled(content))
        notes = {"leaky": str(self.leaky)}
        files = {f"{name}.parquet": table for name, table in self._tables.items()}
        return ["metrics.json", *(name for name, table in files.items() if table.write(path(name), notes=notes))]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Evaluation:
        """Read what save wrote; tables stay in their files until they are looked at.

        Raises:
            MismatchError: a file is missing.
        """
        notes = storage.read_json(path("metrics.json"))
        if not path("heldout.parquet").is_file():
            raise MismatchError(f"{path('heldout.parquet')} is missing; evaluate again with mllmrec evaluate")
        means = {split: _means(models, notes["users"][split]) for split, models in notes["metrics"].items()}
        per_user, heldout = (LazyTable.in_file(path(f"{name}.parquet")) for name in ("per_user", "heldout"))
        farthest, groups, drawn_from = (
            notes.get("farthest_rank", 0),
            _read_groups(notes, path),
            notes.get("drawn_from", {}),
        )
        return Evaluation(notes["leaky"], means, notes["users"], per_user, heldout, groups, farthest, drawn_from)


def _means(models: Mapping[str, Mapping[str, Any]], users: int) -> dict[str, dict[str, float]]:
    """Return model -> metric -> mean; NaN for the null of a split without users."""
    return {
        model: {name: value if users else math.nan for name, value in values.items()}
        for model, values in models.items()
    }


def _read_groups(notes: Mapping[str, Any], path: Callable[[str], Path]) -> Groups:
    if "groups" not in notes:  # of a version that judged no groups
        return Groups()
    users, heldout, means = (notes["groups"][key] for key in ("users", "heldout", "metrics"))
    means = {
        split: {group: _means(models, users[split][group]) for group, models in groups.items()}
        for split, groups in means.items()
    }
    file = path("groups.parquet")
    table = LazyTable.in_file(file) if file.is_file() else LazyTable()
    return Groups(users, heldout, means, table)


def evaluate_models(
    models: Mapping[str, Ranker],
    dataset: Dataset,
    config: EvaluateConfig,
    *,
    leaky: bool = False,
    progress: Progress = silent,
    most: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Evaluate models on the validation and the test split.

    Args:
        models: fitted models by the name that tables print.
        dataset: the split.
        config: cutoffs and protocol.
        leaky: mark the result.
        progress: told before and after each model.
        most: users that are judged; of more test users so many are drawn; 0: everybody is.
        seed: of the draw.
    """
    drawn_from, tasks = dict[str, int](), {split: SplitTask.of(dataset, split, config) for split in SPLITS}
    judged_users = tasks["test"].judged_users()
    limit = _limit(len(judged_users), config)
    if 0 < most < len(judged_users):
        drawn = np.random.default_rng(seed).permutation(judged_users)[:most]
        drawn_from = {split: len(task.judged_users()) for split, task in tasks.items()}
        tasks = {split: task.of_users(drawn) for split, task in tasks.items()}
    ranks = _rank_all(models, dataset.train, tasks, config, limit, progress)
    ranked = RankedModels(dataset, tasks, ranks, config.cutoffs, limit)
    means, users, groups = ranked.summarize()
    tables = LazyTable(ranked.per_user), LazyTable(ranked.heldout)
    return Evaluation(leaky, means, users, *tables, groups, limit or 0, drawn_from)


def _rank_all(
    models: Mapping[str, Ranker],
    train: CSR,
    tasks: Mapping[HeldOut, SplitTask],
    config: EvaluateConfig,
    limit: int | None,
    progress: Progress,
) -> dict[str, dict[HeldOut, SplitRanks]]:
    """Return model -> split -> the ranks of the held-out items; a model lets go of what it derived for them.

    Args:
        models: by name.
        train: binary [U, I], training interactions.
        tasks: of the splits.
        config: whose largest cutoff is the limit of the validation ranks.
        limit: of the test ranks; see ItemRanker.
        progress: told before and after each model.
    """
    ranks, limits = {}, [max(config.cutoffs) if split == "valid" else limit for split in tasks]
    progress("evaluate", 0, len(models))
    for n, (name, model) in enumerate(models.items(), start=1):
        own = rank_tasks(AsShown(model, train), list(tasks.values()), limits, under(progress, f"rank by {name}"))
        ranks[name] = {
            split: SplitRanks(among_all, task.rank_among_cold(model, limit))
            for (split, task), among_all in zip(tasks.items(), own, strict=True)
        }
        if isinstance(model, FittedRanker):
            model.release()  # before the next model takes memory
        progress("evaluate", n, len(models))
    return ranks


def _limit(test_users: int, config: EvaluateConfig) -> int | None:
    """Return the limit of ranks, beyond which they are not told apart; None if all test ranks are counted."""
    return None if test_users <= EXACT_USERS else max(FARTHEST, *config.cutoffs)


def protocol(dataset: Dataset, split: HeldOut, config: EvaluateConfig) -> tuple[CSR, CSR]:
    """Return the held-out items to rank on a split, of users with training items, and the items to leave out.

    Args:
        dataset: the split.
        split: whose interactions are held out.
        config: whether validation items are left out at test time.

    Returns:
        Two binary [U, I] matrices, disjoint.
    """
    task = SplitTask.of(dataset, split, config)
    return task.part(task.known), task.exclude


def nobody_to_judge(split: HeldOut) -> str:
    """Return the sentence for a split without users to judge."""
    part = {"valid": "validation", "test": "test"}[split]
    return f"nobody can be judged on the {part} split, for no user has both a training and a {part} interaction"


def title(split: HeldOut, *, leaky: bool) -> str:
    """Return the heading of a results table."""
    return f"{LEAKY}: profiles saw held-out items ({split})" if leaky else f"{split} split, full ranking"
