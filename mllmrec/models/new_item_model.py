"""A model of item weights and vectors that shows items nobody has bought yet (new_items.py, new_item_placement.py).

Predicted parameters stand in the fitted tables, so whatever reads these serves new items too. The offset of new items
is a column of its own: 1 for every user, the offset for a new item, 0 for a known one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mllmrec.blocks.stage import Blocks
from mllmrec.evaluation.groups import is_warm
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.gpu_parts import gpu_of, on_gpu
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.new_item_placement import ItemPlacer, Placement, choose_placement, lowered_offset, replace_columns
from mllmrec.models.new_items import HalfWhitening
from mllmrec.models.scorer_model import ScorerModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.weight_scorers import StandardizedScorer

NEW_ITEMS = "new items"  # the part whose one column is the offset
_FILE, _NOTES = "new_items.safetensors", "new_items.json"


class NewItemModel(ScorerModel):
    """A model that predicts the parameters of items without training interactions.

    Attributes:
        ridge: item-item weights.
        rest: the other parts, float32 [U, D] and [I, D].
        widths: columns of `rest` by part, in their order.
        placer: predicts parameters from vectors; None where new items are not shown.
        shown: number of new items of the fit's catalogue that are shown.
        unshown: number of those that are not.
    """

    ridge: ItemWeightModel
    rest: VectorScorer
    widths: Mapping[str, int]
    placer: ItemPlacer | None = None
    shown: int = 0
    unshown: int = 0

    @property
    @abstractmethod
    def scorer(self) -> StandardizedScorer:
        """The fitted tables."""

    @abstractmethod
    def _fold_in(self, histories: CSR) -> StandardizedScorer:
        """Return a scorer of users by their histories."""

    @abstractmethod
    def _forget_new_users(self) -> None:
        """Drop what was derived from the tables."""

    def fit_new_items(self, data: FitData, valid: CSR, share: float) -> None:
        """Choose how new items are shown, and show those of the catalogue.

        Args:
            data: what the model was fitted on.
            valid: binary [U, I], validation interactions.
            share: of Recall@20 and NDCG@20 that known items may lose; 0: new items are not shown.
        """
        R, self.placer, self.shown = data.user_items, None, 0
        unknown = np.flatnonzero(~is_warm(R))
        self.unshown = len(unknown)
        if data.items is None or share == 0:
            return
        features, progress, blocks = data.items_or_zeros(), self.context.progress, self.context.blocks
        device = gpu_of(self.context.train)

        def fold_in(histories: CSR) -> StandardizedScorer:
            return on_gpu(self._fold_in(histories), device)

        placement = choose_placement(fold_in, R, valid, features, share, data.seed, progress, blocks)
        self._forget_new_users()
        if placement is None:
            return
        self.placer = ItemPlacer.of(placement, R, features)
        if not len(unknown):
            return
        self.placer = self.placer.with_offset(0.0)
        new = self.show_items(unknown, features[unknown], blocks)
        offset = placement.offset
        if len(new):
            offset = lowered_offset(self.scorer, new, R, valid, share, offset, blocks)
        self.placer = self.placer.with_offset(offset)
        self._set_offset(new)
        self.shown = len(new)
        self.unshown -= self.shown

    def grow_new_items(self, earlier: NewItemModel, data: FitData, changed: NDArray[np.int64]) -> None:
        """Show the items of a grown catalogue that nobody bought, by the placement of an earlier fit.

        Args:
            earlier: the fit, whose own new items stand in the tables already.
            data: of this fit.
            changed: int64, ascending, items that are fitted again.
        """
        warm = is_warm(data.user_items)
        fresh, placed = changed[~warm[changed]], 0
        self.placer = earlier.placer
        if self.placer is not None:
            features = data.items_or_zeros()
            self.placer = _with_known(self.placer, np.flatnonzero(warm), features, changed)
            placed = len(self.show_items(fresh, features[fresh], self.context.blocks))
        before = earlier.ridge.known_interactions()
        again = changed[changed < before.n_columns]
        left = int(np.count_nonzero(~is_warm(before)[again])) if earlier.shown else 0
        self.shown = max(0, earlier.shown - left) + placed
        self.unshown = int(np.count_nonzero(~warm)) - self.shown

    def show_items(
        self, items: NDArray[np.int64], features: Vectors, blocks: Blocks | None = None
    ) -> NDArray[np.int64]:
        """Put the predicted parameters of items into the tables; return the items that could be placed.

        Args:
            items: int64, ascending, without training interactions.
            features: float32, a vector of each.
            blocks: workers that predict instead of this process.
        """
        if self.placer is None:
            return items[:0]
        W, width = self.ridge.sums.matrix, self.rest.items.shape[1] - self.widths.get(NEW_ITEMS, 0)
        placed, columns, rows = self.placer.predict_items(items, features, W, self.rest.items[:, :width], blocks)
        if not len(placed):
            return placed
        self.ridge.set_weights(
            self.ridge.known_interactions(), replace_columns(W, placed, columns), self.ridge.rows, self.ridge.half_life
        )
        if NEW_ITEMS in self.widths:
            self.rest = VectorScorer(self.rest.users, self.rest.items.copy())
        else:  # one side after the other: both twice are more than a large shop's memory holds
            self.rest = VectorScorer(self.rest.users, _with_column(self.rest.items, 0))
            self.rest = VectorScorer(_with_column(self.rest.users, 1), self.rest.items)
            self.widths = {**self.widths, NEW_ITEMS: 1}
        self.rest.items[placed, :width] = rows
        self._set_offset(placed)
        return placed

    def _set_offset(self, items: NDArray[np.int64]) -> None:
        """Write the placer's offset for items that were placed."""
        if self.placer is not None and len(items):
            self.rest.items[items, -1] = self.placer.placement.offset
        self._forget_new_users()

    @property
    def new_items_summary(self) -> str:
        """One line about new items; empty where there are none and nothing was chosen."""
        unshown = f"{self.unshown:,} new items not shown" if self.unshown else ""
        if self.placer is None:
            return unshown
        placement = self.placer.placement
        shown = (
            f"{self.shown:,} new items shown by their vectors (of {placement.hidden:,} hidden ones Recall@20 is "
            f"{placement.recall:.3f}, for {placement.lost_recall:.1%} of that of known ones)"
        )
        return "; ".join(text for text in (shown, unshown) if text)

    def write_new_items(self, path: FilePath) -> list[str]:
        """Write new_items.json, and new_items.safetensors where new items can be placed; return their names."""
        notes = {"shown": self.shown, "unshown": self.unshown}
        if self.placer is None:
            storage.write_json(path(_NOTES), notes)
            return [_NOTES]
        placer = self.placer
        tensors = {
            "mean": placer.whitening.mean,
            "axes": placer.whitening.axes,
            "known": placer.known,
            "vectors": placer.vectors,
        }
        with storage.atomic(path(_FILE)) as temporary:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary)
        storage.write_json(path(_NOTES), {**notes, "placement": placer.placement.to_json()})
        return [_FILE, _NOTES]

    def read_new_items(self, path: FilePath) -> None:
        """Read what `write_new_items` wrote; files of earlier versions have nothing of it."""
        self.placer, self.shown, self.unshown = None, 0, 0
        if not path(_NOTES).is_file():
            return
        notes = storage.read_json(path(_NOTES))
        self.shown, self.unshown = int(notes["shown"]), int(notes["unshown"])
        if "placement" in notes:
            tensors = load_file(path(_FILE))
            whitening = HalfWhitening(tensors["mean"], tensors["axes"])
            placement = Placement.from_json(notes["placement"])
            self.placer = ItemPlacer(whitening, tensors["known"], tensors["vectors"], placement)


def _with_known(
    placer: ItemPlacer, known: NDArray[np.int64], features: Vectors, changed: NDArray[np.int64]
) -> ItemPlacer:
    """Return the placer with other known items; those that it has keep their x unless they changed.

    Args:
        placer: of an earlier fit.
        known: int64 [K], ascending.
        features: float32 [I, d], item vectors.
        changed: int64, ascending, items whose vectors may be others.
    """
    kept = np.setdiff1d(np.intersect1d(known, placer.known), changed)
    others = np.setdiff1d(known, kept)
    x = np.empty((len(known), placer.vectors.shape[1]), np.float32)
    x[np.searchsorted(known, kept)] = placer.vectors[np.searchsorted(placer.known, kept)]
    x[np.searchsorted(known, others)] = placer.whitening(features[others])
    return replace(placer, known=known, vectors=x)


def _with_column(table: Vectors, value: float) -> Vectors:
    """Return a table with one more column, of one value."""
    return np.concatenate([table, np.full((len(table), 1), value, np.float32)], axis=1)
