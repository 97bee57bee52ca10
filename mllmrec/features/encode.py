"""Stage 3: texts -> float32 unit vectors, frozen from here on.

The encoder reads 256 word pieces and drops the rest. So a document is built to fit: each of its parts keeps a fair
share of the budget. The text on the pictures stands last, and a long description never crowds it out. Cuts are
counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for

from mllmrec.blocks.stage import Blocks
from mllmrec.config import EncodeConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import EngineError, InputError, MismatchError
from mllmrec.features.encoder import Encoder
from mllmrec.features.encoder import Vectors as Vectors
from mllmrec.features.encoder import normalize_rows as normalize_rows
from mllmrec.foundation import storage
from mllmrec.foundation.memory import map_array
from mllmrec.foundation.progress import Progress, silent
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Item
from mllmrec.reason.profile import Profiles

_AVERAGED = 1 << 12  # users whose items are averaged at once, by a thread
_SILENT_SECONDS = 1.0  # texts that are cut faster need no progress


@dataclass(frozen=True, slots=True)
class Cuts:
    """The text that the encoder's limit left out.

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
        items: float32 [I, d], unit rows (zero if an item has no text at all).
        users: float32 [U, d'], unit rows (zero for users without a history).
        histories: digest of the histories behind `users`.
        cuts: text that the encoder's limit left out.
    """

    items: Vectors
    users: Vectors
    histories: str
    cuts: Cuts

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        (items, width), (users, own), cuts = self.items.shape, self.users.shape, self.cuts
        wide = f"{width}" if own == width else f"{width} and {own}"
        zero = items - int(np.count_nonzero(self.items.any(axis=1)))
        without = f"; {zero:,} items have a zero vector" if zero else ""
        return (
            f"{items:,} items and {users:,} users in {wide} dimensions; "
            f"{cuts.items_cut:,} documents and {cuts.profiles_cut:,} profiles shortened{without}"
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

    def mapped(self, path: Callable[[str], Path], *sides: Literal["items", "users"]) -> Features:
        """Return the same features; those of the named sides stay in the file that save wrote until they are read."""
        files = {side: map_array(path(f"{side}.npy")) for side in sides}
        return replace(self, items=files.get("items", self.items), users=files.get("users", self.users))

    @staticmethod
    def of_items(items: Vectors, histories: Histories) -> Features:
        """Return features of given item vectors, float32 [I, d]; users are the means of their items."""
        return Features(items, mean_of_items(items, histories), histories.digest, Cuts(0, 0, 0, 0))

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
    *,
    blocks: Blocks | None = None,
) -> Features:
    """Encode every item's document and every user's profile.

    Args:
        dataset: the catalogue.
        histories: those behind the profiles.
        descriptions: D_s of each item.
        profiles: P_u of each user; of kind "mean", a user is the mean of their items' vectors, and of kind
            "hidden" the model's states, centered, are the user's vector, of a width of their own.
        config: encoder and limits.
        parts: folder for finished shards, so that a killed run goes on there.
        progress: called as texts are cut, and after each shard.
        blocks: workers that encode instead of this process.

    Raises:
        EngineError: the encoder cannot be loaded.
        MismatchError: the profiles do not belong to the histories.
        InputError: a vector is not finite.
    """
    profiles.check(histories)
    has_profiles = any(profiles.texts)
    states = None if profiles.vectors is None else center_states(profiles.vectors)
    if config.features:
        if has_profiles:
            raise EngineError(
                f"encode.features={config.features!r} has no encoder for profile texts; add --set profile.kind=mean"
            )
        items, cuts = _given(dataset, config.features), Cuts(0, 0, 0, 0)
        given = mean_of_items(items, histories) if states is None else states
        return Features(items, given, histories.digest, cuts)
    encoder = _load(config, progress)
    items, item_cuts = _encode_items(encoder, dataset, descriptions, parts, progress, blocks)
    fitted = _fit(encoder, [[text] for text in profiles.texts], progress, "cut profiles") if has_profiles else []
    if states is not None:
        users = states
    elif has_profiles:
        users = encoder.encode([text for text, _ in fitted], parts, progress, "encode profiles", blocks)
        _check_finite(users, dataset.users.to_list(), "user")
    else:
        users = mean_of_items(items, histories)
    return Features(items, users, histories.digest, _count_cuts(item_cuts, [cut for _, cut in fitted]))


def encode_items(
    dataset: Dataset, descriptions: Descriptions, config: EncodeConfig, parts: Path, progress: Progress = silent
) -> tuple[Vectors, list[int]]:
    """Encode every item's document, and nothing else.

    Args:
        dataset: the catalogue.
        descriptions: D_s of each item.
        config: encoder and limits.
        parts: folder for finished shards.
        progress: called as texts are cut, and after each shard.

    Returns:
        float32 [I, d], and the word pieces that were left out of each document.

    Raises:
        EngineError: the encoder cannot be loaded.
        InputError: a vector is not finite.
    """
    return _encode_items(_load(config, progress), dataset, descriptions, parts, progress)


def _load(config: EncodeConfig, progress: Progress) -> Encoder:
    progress("load encoder", 0, 1)
    encoder = Encoder(config)
    progress("load encoder", 1, 1)
    return encoder


def _encode_items(
    encoder: Encoder,
    dataset: Dataset,
    descriptions: Descriptions,
    parts: Path,
    progress: Progress,
    blocks: Blocks | None = None,
) -> tuple[Vectors, list[int]]:
    items_parts = [parts_of(item, text) for item, text in zip(catalogue(dataset), descriptions.texts, strict=True)]
    documents = _fit(encoder, items_parts, progress, "cut items' texts")
    items = encoder.encode([text for text, _ in documents], parts, progress, "encode items", blocks)
    _check_finite(items, dataset.item_ids.to_list(), "item")
    return items, [cut for _, cut in documents]


def _fit(encoder: Encoder, texts: Sequence[Sequence[str]], progress: Progress, label: str) -> list[tuple[str, int]]:
    """Cut texts to what the encoder reads; fast cuts need no progress."""
    started, fitted = time.monotonic(), []
    for parts in texts:
        fitted.append(encoder.fit(parts))
        if time.monotonic() - started > _SILENT_SECONDS:
            progress(label, len(fitted), len(texts))
    return fitted


def parts_of(item: Item, description: str) -> list[str]:
    """Return D_m of an item in parts: title, brand, categories, description, and the text on its pictures."""
    return [item.title, item.brand, " ".join(item.categories), item.description, description]


def mean_of_items(items: Vectors, histories: Histories) -> Vectors:
    """Return the renormalized mean of each user's item vectors, float32 [U, d]; see mean_of_owned."""
    return mean_of_owned(items, histories.user_items())


def mean_of_owned(items: Vectors, user_items: CSR) -> Vectors:
    """Return the renormalized mean of each user's item vectors; users without items get a zero row.

    Args:
        items: float32 [I, d].
        user_items: binary [U, I].

    Returns:
        float32 [U, d].
    """
    rows, items = user_items.to_scipy(), np.ascontiguousarray(items)
    means = np.empty((user_items.n_rows, items.shape[1]), np.float32)

    def _work(start: int, stop: int) -> None:
        means[start:stop] = normalize_rows(np.asarray(rows[start:stop] @ items, dtype=np.float32))

    parallel_for(_work, chunks(user_items.n_rows, _AVERAGED))
    return means


def center_states(states: Vectors) -> Vectors:
    """Return hidden states less their mean over the users who have some, as unit rows; zero rows stay zero.

    A few values of such states are large and the same for everybody; without the mean they decide every product.
    """
    there = np.flatnonzero(states.any(axis=1))
    if len(there) < 2:
        return normalize_rows(states)
    centered = np.zeros_like(states, dtype=np.float32)
    centered[there] = states[there] - states[there].mean(axis=0, dtype=np.float64)
    return normalize_rows(centered)


def _given(dataset: Dataset, name: str) -> Vectors:
    if name not in dataset.features:
        known = ", ".join(sorted(dataset.features)) or "none"
        raise InputError(f"{dataset.folder} has no item feature {name!r}; it has: {known}")
    vectors = np.array(storage.read_array(dataset.features[name]), dtype=np.float32)
    _check_finite(vectors, dataset.item_ids.to_list(), "item")
    return normalize_rows(vectors)


def _check_finite(vectors: Vectors, ids: Sequence[Any], what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        named = ", ".join(repr(ids[n]) for n in bad[:5])
        raise InputError(f"the vectors of {len(bad)} {what}s hold NaN or infinity: {named}; mend or drop them")


def _count_cuts(documents: Sequence[int], profiles: Sequence[int]) -> Cuts:
    return Cuts(sum(map(bool, documents)), sum(documents), sum(map(bool, profiles)), sum(profiles))
