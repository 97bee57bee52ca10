"""The contract of every model: fit, score, recommend, find similar items, save, load.

A model is built from its settings, `EASE(regularization=100)`, and fitted on a matrix of interactions: a notebook needs
no dataset folder. A run adds what it knows beside that matrix by `FitContext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.config import ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.errors import InputError, TrainingError
from mllmrec.evaluation.metrics import users_with_heldout
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models.registry import read_settings
from mllmrec.models.scoring import Lists, ranks_by_block, top_by_user

Matrix: TypeAlias = CSR | sp.sparray | sp.spmatrix
Candidate = tuple[str, ...]
FilePath = Callable[[str], Path]  # from a file's name to where it lies
_SETTINGS, _INTERACTIONS = "model.json", "interactions.npz"


@dataclass(frozen=True, slots=True)
class FitContext:
    """The things that a run adds to the arguments of `fit`.

    Attributes:
        train: the device of every model, and the settings of networks.
        item_graph: for models that read one; None: they build it from the item features.
        histories: the training histories behind the matrix; networks train their pairs in this order.
        checkpoint: file from which a killed training goes on; None: no checkpoints.
        progress: called while a fit goes on.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    item_graph: ItemGraph | None = None
    histories: Histories | None = None
    checkpoint: Path | None = None
    progress: Progress = silent

    @property
    def digest(self) -> str:
        """SHA-256 of the training histories; empty outside a run."""
        return self.histories.digest if self.histories else ""


@dataclass(frozen=True, slots=True)
class FitData:
    """The checked arguments of `fit`.

    Attributes:
        user_items: R, binary [U, I], training interactions.
        items: float32 [I, d], a vector per item; None: there are none.
        users: float32 [U, d], a vector per user; None: there are none.
        valid: binary [U, I], validation interactions; None: there are none.
        seed: seed of what is random.
    """

    user_items: CSR
    items: Vectors | None = None
    users: Vectors | None = None
    valid: CSR | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a matrix without interactions, and features of another number of rows."""
        if self.user_items.nnz == 0:
            raise TrainingError("there are no training interactions; prepare the dataset with another split")
        n_users, n_items = self.user_items.shape
        for name, count, vectors in (("item", n_items, self.items), ("user", n_users, self.users)):
            if vectors is not None and (vectors.ndim != 2 or len(vectors) != count):
                raise InputError(f"{name}_features must have shape ({count}, d); got {vectors.shape}")

    def items_or_zeros(self) -> Vectors:
        """Return the item vectors; zeros [I, 1], like nothing at all, where there are none."""
        if self.items is None:
            return np.zeros((self.user_items.n_columns, 1), np.float32)
        return np.ascontiguousarray(self.items, np.float32)

    def required_valid(self, use: str) -> CSR:
        """Return the validation interactions; `use` is what they are for, as an error says it.

        Raises:
            TrainingError: no user has both a training and a validation interaction.
        """
        if self.valid is None or self.valid.nnz == 0:
            why = "the validation split is empty"
        elif len(users_with_heldout(self.user_items, self.valid)) == 0:
            why = "no user has both a training and a validation interaction"
        else:
            return self.valid
        raise TrainingError(
            f"{why}, and {use}; prepare the dataset with a split that holds some interactions out, or pass valid="
        )


class Recommender(ABC):
    """A model that ranks items for users.

    Attributes:
        Config: its settings.
        title: the name that tables print.
        candidates: settings that `mllmrec compare` chooses from by validation; the first are the defaults.
        is_random: whether a fit depends on the seed.
        config: the settings of this instance.
        context: what a run adds.
        user_items: binary [U, I], the training interactions; None before a fit.
    """

    Config: ClassVar[type[ModelConfig]]
    title: ClassVar[str]
    candidates: ClassVar[Sequence[Candidate]] = ((),)
    is_random: ClassVar[bool] = False
    user_items: CSR | None = None

    def __init__(
        self, config: ModelConfig | None = None, *, context: FitContext | None = None, **settings: Any
    ) -> None:
        """Take settings as a config or by name.

        Raises:
            ConfigError: the kind has no such setting, or a value does not fit.
        """
        kind = self.Config.model_fields["kind"].default
        self.config = config or read_settings({"kind": kind, **settings})
        self.context = context or FitContext()

    def fit(
        self,
        user_items: Matrix,
        *,
        item_features: Vectors | None = None,
        user_features: Vectors | None = None,
        valid: Matrix | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit the model.

        Args:
            user_items: [U, I], scipy sparse or CSR; every entry but 0 is an interaction.
            item_features: float32 [I, d], a vector per item.
            user_features: float32 [U, d], a vector per user.
            valid: [U, I], validation interactions, to stop by or to choose by.
            seed: seed of what is random.

        Returns:
            The model itself.

        Raises:
            TrainingError: there is nothing to train on, to stop by or to choose by.
            InputError: the arguments do not fit together, or the model needs features that are not there.
        """
        matrix, held = as_interactions(user_items), None if valid is None else as_interactions(valid)
        data = FitData(matrix, item_features, user_features, held, seed)
        self.user_items = data.user_items
        self._fit(data)
        return self

    @abstractmethod
    def _fit(self, data: FitData) -> None:
        """Fit the model to checked data."""

    @abstractmethod
    def scores(self, users: ArrayLike) -> NDArray[np.float32]:
        """Score every item for some users.

        Args:
            users: int [B], rows of the fitted matrix.

        Returns:
            float32 [B, I], the caller's to change.
        """

    @abstractmethod
    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return the k items most like each of some items, best first.

        Args:
            items: int [B].
            k: items per list.

        Returns:
            ids int32 [B, k], padded with -1, and scores float32 [B, k], padded with -inf.
        """

    @abstractmethod
    def write_files(self, path: FilePath) -> list[str]:
        """Write what a fit has left; return the names of the files."""

    @abstractmethod
    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return self.title

    def recommend(self, users: ArrayLike, k: int, *, exclude: Matrix | None = None) -> Lists:
        """Return the k items of highest score for each of some users, best first; of equal scores the lower id.

        Args:
            users: int [B], rows of the fitted matrix.
            k: items per user.
            exclude: [B, I], items not to list, a row a user; None: the users' training items.

        Returns:
            ids int32 [B, k], padded with -1, and scores float32 [B, k], padded with -inf.

        Raises:
            InputError: there are no training items to exclude, for the model was read from a run's files.
        """
        rows = user_rows(users)
        return self._top(rows, k, self._excluded(rows, exclude))

    def _excluded(self, users: NDArray[np.int64], exclude: Matrix | None) -> CSR:
        if exclude is not None:
            return as_interactions(exclude)
        if self.user_items is None:
            raise InputError(
                "this model knows no training interactions; fit it, or pass exclude= with items to leave out"
            )
        return self.user_items.take_rows(users)

    def _top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        return top_by_user(self, users, k, exclude)

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
        return ranks_by_block(self, exclude, heldout, progress)

    def save(self, folder: str | Path) -> None:
        """Write the settings, the training interactions and the fitted model into a folder.

        Raises:
            InputError: the model is not fitted.
            StorageError: the folder cannot be written.
        """
        if self.user_items is None:
            raise InputError("this model is not fitted; call fit() before save()")
        target = storage.make_folder(Path(folder))
        self.write_files(lambda name: target / name)
        with storage.atomic(target / _INTERACTIONS) as temporary, temporary.open("wb") as file:
            sp.save_npz(file, sp.csr_matrix(self.user_items.to_scipy()))
        storage.write_json(target / _SETTINGS, self.config.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: the folder holds no such model.
        """
        source = Path(folder)
        model = cls(read_settings(storage.read_json(source / _SETTINGS))).read_files(lambda name: source / name)
        model.user_items = as_interactions(sp.load_npz(source / _INTERACTIONS))
        return model


def as_interactions(matrix: Matrix) -> CSR:
    """Return the pattern of a matrix: a binary CSR; explicit zeros are no entries."""
    if isinstance(matrix, CSR):
        return matrix if matrix.data is None else CSR.from_scipy(matrix.to_scipy(), binary=True)
    if not sp.issparse(matrix):
        raise InputError(f"user_items must be a sparse matrix of scipy or a CSR; got {type(matrix).__name__}")
    csr = sp.csr_array(matrix)
    return CSR.from_scipy(csr if csr.data.all() else csr != 0, binary=True)


def user_rows(users: ArrayLike) -> NDArray[np.int64]:
    """Return ids as int64 [B]."""
    return np.atleast_1d(np.asarray(users, dtype=np.int64))
