"""Stage 3: texts -> float32 unit vectors (method 2.2 and 2.4), frozen from here on.

The encoder reads 256 word pieces and drops the rest. So a document is built to fit: each of its parts keeps
a fair share of the budget, and what the pictures said, which stands last, is never crowded out by a long
description. What had to be cut is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.config import EncodeConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import EngineError, InputError, MismatchError
from mllmrec.features.encoder import Encoder
from mllmrec.features.encoder import Vectors as Vectors
from mllmrec.features.encoder import normalise_rows as normalise_rows
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Item
from mllmrec.reason.profile import Profiles


@dataclass(frozen=True, slots=True)
class Cuts:
    """How much text the encoder's limit left out.

    Attributes:
        items_cut: item documents of which a part was shortened.
        item_pieces_cut: word pieces left out of them, summed.
        profiles_cut: profiles that were shortened.
        profile_pieces_cut: word pieces left out of them, summed.
    """

    items_cut: int
    item_pieces_cut: int
    profiles_cut: int
    profile_pieces_cut: int


@dataclass(frozen=True, slots=True)
class Features:
    """The frozen features of a run.

    Attributes:
        items: float32 [I, d], unit rows (zero where an item has no text at all).
        users: float32 [U, d'], unit rows (zero for users without a history).
        histories: digest of the histories behind `users`.
        cuts: what the encoder's limit left out.
    """

    items: Vectors
    users: Vectors
    histories: str
    cuts: Cuts

    @property
    def summary(self) -> str:
        """One line for a person."""
        (items, width), (users, own), cuts = self.items.shape, self.users.shape, self.cuts
        wide = f"{width}" if own == width else f"{width} and {own}"
        return (
            f"{items:,} items and {users:,} users in {wide} dimensions; "
            f"{cuts.items_cut:,} documents and {cuts.profiles_cut:,} profiles shortened"
        )

    def check(self, histories: Histories) -> None:
        """Refuse features of another split or size.

        Raises:
            MismatchError: they were not made from these histories, or for another catalogue.
        """
        if self.histories != histories.digest:
            raise MismatchError(
                "the user vectors were made from other histories than the split in use; "
                "make them again with mllmrec encode"
            )
        if (len(self.items), len(self.users)) != (histories.n_items, histories.n_users):
            raise MismatchError(
                f"the features have {len(self.items)} items and {len(self.users)} users, the dataset "
                f"{histories.n_items} and {histories.n_users}; make them again with mllmrec encode"
            )

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write items.npy, users.npy and encode.json."""
        storage.write_array(path("items.npy"), self.items)
        storage.write_array(path("users.npy"), self.users)
        storage.write_json(path("encode.json"), {"histories": self.histories, "cuts": asdict(self.cuts)})
        return ["items.npy", "users.npy", "encode.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Features:
        """Read what save wrote."""
        notes = storage.read_json(path("encode.json"))
        items, users = (np.array(storage.read_array(path(name))) for name in ("items.npy", "users.npy"))
        return Features(items, users, notes["histories"], Cuts(**notes["cuts"]))


def encode_texts(
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    profiles: Profiles,
    config: EncodeConfig,
    parts: Path,
    progress: Progress = silent,
) -> Features:
    """Encode every item's document and every user's profile.

    Args:
        dataset: the catalogue.
        histories: what the profiles were made from.
        descriptions: D_s of each item.
        profiles: P_u of each user; of kind "mean", a user is the mean of their items' vectors, and of kind
            "hidden" the model's states are the user's vector, of a width of their own.
        config: encoder and limits.
        parts: folder for finished shards, so that a killed run goes on there.
        progress: told after each shard.

    Raises:
        EngineError: the encoder cannot be loaded.
        MismatchError: the profiles do not belong to the histories.
        InputError: a vector is not finite.
    """
    profiles.check(histories)
    wants_profiles = any(profiles.texts)
    states = None if profiles.vectors is None else normalise_rows(profiles.vectors)
    if config.features:
        if wants_profiles:
            raise EngineError(
                f"encode.features={config.features!r} has no encoder for profile texts; add --set profile.kind=mean"
            )
        items, cuts = _given(dataset, config.features), Cuts(0, 0, 0, 0)
        given = mean_of_items(items, histories) if states is None else states
        return Features(items, given, histories.digest, cuts)
    encoder = Encoder(config)
    documents = [
        encoder.fit(parts_of(item, text)) for item, text in zip(catalogue(dataset), descriptions.texts, strict=True)
    ]
    items = encoder.encode([text for text, _ in documents], parts, progress, "encode items")
    _check_finite(items, dataset.item_ids.to_list(), "item")
    fitted = [encoder.fit([text]) for text in profiles.texts] if wants_profiles else []
    if states is not None:
        users = states
    elif wants_profiles:
        users = encoder.encode([text for text, _ in fitted], parts, progress, "encode profiles")
        _check_finite(users, dataset.users.to_list(), "user")
    else:
        users = mean_of_items(items, histories)
    return Features(items, users, histories.digest, _count_cuts(documents, fitted))


def parts_of(item: Item, description: str) -> list[str]:
    """D_m of an item in parts (method 2.2): title, brand, categories, description, what the pictures show."""
    return [item.title, item.brand, " ".join(item.categories), item.description, description]


def mean_of_items(items: Vectors, histories: Histories) -> Vectors:
    """The "without reasoning" user: the renormalised mean of their items' vectors, float32 [U, d].

    Users without items get a zero row.
    """
    means = np.asarray(histories.user_items().to_scipy() @ items, dtype=np.float32)
    return normalise_rows(means)


def _given(dataset: Dataset, name: str) -> Vectors:
    if name not in dataset.features:
        known = ", ".join(sorted(dataset.features)) or "none"
        raise InputError(f"{dataset.folder} has no item feature {name!r}; it has: {known}")
    vectors = np.array(storage.read_array(dataset.features[name]), dtype=np.float32)
    _check_finite(vectors, dataset.item_ids.to_list(), "item")
    return normalise_rows(vectors)


def _check_finite(vectors: Vectors, ids: Sequence[Any], what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        named = ", ".join(repr(ids[n]) for n in bad[:5])
        raise InputError(f"the vectors of {len(bad)} {what}s hold NaN or infinity: {named}; mend or drop them")


def _count_cuts(documents: Sequence[tuple[str, int]], profiles: Sequence[tuple[str, int]]) -> Cuts:
    items, users = ([cut for _, cut in texts if cut] for texts in (documents, profiles))
    return Cuts(len(items), sum(items), len(users), sum(users))
