"""The contract of every model: fit, score, recommend, find similar items, save, load.

A model is built from its settings, `EASE(regularization=100)`, and fitted on a matrix of interactions: a notebook needs
no dataset folder. A run adds what it knows beside that matrix by `FitContext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.config import ModelConfig
from mllmrec.errors import InputError
from mllmrec.evaluation.groups import ItemRanker
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.fitting import FitContext as FitContext
from mllmrec.models.fitting import FitData as FitData
from mllmrec.models.fitting import Matrix as Matrix
from mllmrec.models.fitting import Refitted as Refitted
from mllmrec.models.fitting import as_interactions as as_interactions
from mllmrec.models.fitting import check_histories as check_histories
from mllmrec.models.fitting import user_rows as user_rows
from mllmrec.models.new_items import check_new_vectors, extend_columns, place
from mllmrec.models.registry import read_settings
from mllmrec.models.scoring import Lists, ScoresAmong, ranks_by_block, top_by_user

if TYPE_CHECKING:
    from mllmrec.models.scorer_model import FittedScorer

Candidate = tuple[str, ...]
Source = Literal["items", "users", "graph"]
FilePath = Callable[[str], Path]  # from a file's name to where it lies
_SETTINGS, _INTERACTIONS, _FEATURES = "model.json", "interactions.npz", "item_features.npy"


class Recommender(ABC):
    """A model that ranks items for users.

    Attributes:
        Config: its settings.
        title: the name that tables print.
        candidates: settings that `mllmrec compare` chooses from by validation; the first are the defaults.
        is_random: whether a fit depends on the seed.
        is_network: whether epochs of gradient steps fit it; see NetworkModel.
        goes_on: whether a fit takes an earlier one's choices or arrays over; see `FitContext.earlier`.
        derived: names of attributes that are derived from the fitted arrays, and large.
        reads: what a fit looks at beside the interactions: item vectors, user vectors, the item graph. What no model
            of a run reads is not made.
        config: the settings of this instance.
        context: what a run adds.
        user_items: binary [U, I], the training interactions; None before a fit.
        item_features: float32 [I, d], the vectors that new items are placed by; None if the fit had none. A model
            that is read from a run's files has none until they are set.
        refitted: what was fitted again where the rest was kept from an earlier fit; None: everything was fitted.
    """

    Config: ClassVar[type[ModelConfig]]
    title: ClassVar[str]
    candidates: ClassVar[Sequence[Candidate]] = ((),)
    is_random: ClassVar[bool] = False
    is_network: ClassVar[bool] = False
    goes_on: ClassVar[bool] = False
    derived: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[frozenset[Source]] = frozenset({"items", "users", "graph"})
    user_items: CSR | None = None
    item_features: Vectors | None = None
    refitted: Refitted | None = None

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
        self.user_items, self.item_features = data.user_items, data.items
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

    @property
    def keeps_refits(self) -> bool:
        """Tell whether a later fit may keep this one where nothing changed."""
        return False

    def recommend(self, users: ArrayLike | Matrix, k: int, *, exclude: Matrix | None = None) -> Lists:
        """Return the k items of highest score for each of some users, best first; of equal scores the lower id.

        Args:
            users: int [B], rows of the fitted matrix; or sparse [B, I], histories of users that the fit did not know.
            k: items per user.
            exclude: [B, I], items not to list, a row per user; None: the users' training items, or their histories.

        Returns:
            ids int32 [B, k], padded with -1, and scores float32 [B, k], padded with -inf.

        Raises:
            InputError: there are no training items to exclude, for the model was read from a run's files; or a
                history does not fit, or this kind of model cannot place new users.
        """
        if isinstance(users, CSR) or sp.issparse(users):
            histories = as_interactions(users)
            shown = histories if exclude is None else as_interactions(exclude)
            return self._top_new(histories, k, shown)
        rows = user_rows(users)
        return self._top(rows, k, self._excluded(rows, exclude))

    def fold_in(self, user_items: Matrix) -> FittedScorer:
        """Return a scorer of users that the fit did not know, from their histories in closed form.

        Args:
            user_items: [B, I], a history per row; a user without items scores every item the same, or by popularity.

        Raises:
            InputError: the histories have another number of items than the model, the model is not fitted, or its
                kind has no closed form for new users.
        """
        return self._fold_in(as_interactions(user_items))

    def add_items(self, features: Vectors) -> Self:
        """Return a copy of the model with further items, placed by their vectors among those of the fit.

        Nothing is trained, and the model stays as it is. Rows of interactions widen by items that nobody has.

        Args:
            features: float32 [N, d], a vector a new item, as `item_features` has them.

        Returns:
            A model of I + N items, the new ones last.

        Raises:
            InputError: the model has no item features, the new ones do not fit, or this kind cannot place new items.
        """
        known, new = check_new_vectors(self.item_features, features)
        wider = copy(self)
        wider.item_features = np.concatenate([known, new])
        wider._add_items(new, place(known, new, self.user_items))
        if self.user_items is not None:
            wider.user_items = extend_columns(self.user_items, len(new))
        return wider

    def _add_items(self, features: Vectors, shares: sp.csr_array) -> None:
        """Widen this copy's arrays by new items, whose shares of the known ones are float32 [N, I]."""
        raise InputError(f"{self.title} has no place for items that the fit did not know; fit it again with them")

    def _top_new(self, histories: CSR, k: int, exclude: CSR) -> Lists:
        return self.fold_in(histories).top(np.arange(histories.n_rows), k, exclude)

    def _fold_in(self, histories: CSR) -> FittedScorer:
        raise InputError(
            f"{self.title} has no closed form for users that the fit did not know; fit it again with them, or take "
            "model.kind=ensemble"
        )

    def _excluded(self, users: NDArray[np.int64], exclude: Matrix | None) -> CSR:
        if exclude is not None:
            return as_interactions(exclude)
        if self.user_items is None:
            raise InputError("this model knows no training interactions; fit it, or pass exclude= with items to omit")
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

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the ranker of only some items, int64 [m], ascending; its column j is `items[j]`."""
        return ScoresAmong(self, items)

    def release(self) -> None:
        """Drop what ranks and lists derived from the fitted arrays; the next ones derive it again."""
        for name in self.derived:
            self.__dict__.pop(name, None)

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
        if self.item_features is not None:
            storage.write_array(target / _FEATURES, np.ascontiguousarray(self.item_features, np.float32))
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
        if (source / _FEATURES).exists():
            model.item_features = np.array(storage.read_array(source / _FEATURES))
        return model
