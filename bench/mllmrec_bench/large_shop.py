"""Generate a large shop as files: users with tastes, goods by popularity, and a vector per item.

    python -m mllmrec_bench.large_shop --users 200000 --items 100000 --interactions 2200000 --out shop
    mllmrec prepare shop --out dataset
    mllmrec run dataset --out run --set encode.features=item_feat --set profile.kind=mean

An item belongs to a cluster, and its vector lies near the cluster's center. Popularity falls as 1 / rank (Zipf, 1949).
A user has a few clusters. Most interactions are with items of these clusters by popularity. Some are with any item by
popularity, and a few with any item at all. The folder is one of the MMRec toolbox, with `random` parts by user.

Users are drawn a block at a time: memory grows with users + items, and not with the interactions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset import splits
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent

FEATURE = "item_feat"  # for encode.features
_LEAST = 5  # interactions of a user
_TASTES = 3  # clusters of a user
_ITEMS_A_CLUSTER = 200
_TASTE_SHARE, _POPULAR_SHARE = 0.8, 0.15  # of the interactions; the rest is with any item
_TAIL = 1.0  # sigma of the log-normal number of interactions beyond the least
_NOISE = 1.0  # length of what sets an item's vector off its cluster's center, of length 1
_RANKS_SHIFT = 10.0  # popularity is 1 / (rank + shift): the first item is no tenth of the shop
_USERS, _ROWS = 1 << 15, 1 << 14  # drawn at once


@dataclass(frozen=True, slots=True)
class ShopSize:
    """Size of a generated shop.

    Attributes:
        users: number of users.
        items: number of items.
        interactions: distinct pairs, from 5 per user to a quarter of all pairs.
        width: columns of an item's vector.
        seed: of all draws.
    """

    users: int
    items: int
    interactions: int
    width: int = 384
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        least, most = _LEAST * self.users, self.users * self.items // 4
        if min(self.users, self.items, self.width) < 1 or not least <= self.interactions <= most:
            raise InputError(
                f"cannot draw {self.interactions:,} interactions of {self.users:,} users with {self.items:,} items; "
                f"from {least:,} to {most:,}"
            )


class LargeShop:
    """The draws of a shop; the same for the same size and seed.

    Args:
        size: users, items, interactions, seed.
    """

    def __init__(self, size: ShopSize) -> None:
        self.size = size
        seeds = np.random.SeedSequence(size.seed).spawn(3)
        self._shop, self._users, self._vectors = (np.random.default_rng(seed) for seed in seeds)
        n_clusters = max(1, size.items // _ITEMS_A_CLUSTER)
        self._cluster_of = self._shop.integers(n_clusters, size=size.items)
        popularity = 1 / (self._shop.permutation(size.items) + _RANKS_SHIFT)
        self._by_cluster = np.argsort(self._cluster_of, kind="stable")  # items, cluster by cluster
        self._cumulated = np.concatenate([[0.0], np.cumsum(popularity[self._by_cluster])])
        self._starts = np.searchsorted(self._cluster_of[self._by_cluster], np.arange(n_clusters + 1))
        self._counts = self._draw_counts()

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Yield the unit vectors of the items, float32 [rows, width], some rows at a time."""
        spread = (1 + np.arange(self.size.width)) ** -0.25
        centers = _unit(self._vectors.standard_normal((len(self._starts) - 1, self.size.width)) * spread)
        for start in range(0, self.size.items, _ROWS):
            own = centers[self._cluster_of[start : start + _ROWS]]
            noise = self._vectors.standard_normal(own.shape) * spread
            yield _unit(own + _NOISE * _unit(noise)).astype(np.float32)

    def interactions(self) -> Iterator[pl.DataFrame]:
        """Yield userID, itemID and x_label (0 training, 1 validation, 2 test), a block of users at a time."""
        for start in range(0, self.size.users, _USERS):
            users, items = self._draw_pairs(self._counts[start : start + _USERS])
            block = pl.DataFrame({"user": users + start, "item": items})
            parts = splits.assign(block, "random", self.size.seed + start)
            yield block.select(userID="user", itemID="item", x_label=pl.Series(parts))

    def _draw_counts(self) -> NDArray[np.int64]:
        """Return the interactions of each user, int64 [U]; they sum to the size's."""
        size, most = self.size, max(_LEAST, self.size.items // 2)
        weights = self._users.lognormal(0, _TAIL, size.users)
        counts = np.full(size.users, _LEAST, np.int64)
        while (missing := size.interactions - int(counts.sum())) > 0:
            weights[counts >= most] = 0
            counts += self._users.multinomial(missing, weights / weights.sum())
            np.minimum(counts, most, out=counts)
        return counts

    def _draw_pairs(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users [n], from 0, and items [n]: `counts` distinct items of each user."""
        n_items, n_clusters = self.size.items, len(self._starts) - 1
        tastes = self._users.integers(n_clusters, size=(len(counts), _TASTES))
        keys, missing = np.empty(0, np.int64), counts
        while missing.any():
            owners = np.repeat(np.arange(len(counts)), missing)
            drawn = owners * n_items + self._draw_items(tastes[owners])
            keys = np.union1d(keys, drawn)
            missing = counts - np.bincount(keys // n_items, minlength=len(counts))
        return keys // n_items, keys % n_items

    def _draw_items(self, tastes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return an item for each row of clusters [n, 3], int64 [n]."""
        n, rng = len(tastes), self._users
        kind, chosen = rng.random(n), tastes[np.arange(n), rng.integers(_TASTES, size=n)]
        low, high = self._cumulated[self._starts[chosen]], self._cumulated[self._starts[chosen + 1]]
        anywhere = (kind >= _TASTE_SHARE) | (low == high)
        low, high = np.where(anywhere, 0.0, low), np.where(anywhere, self._cumulated[-1], high)
        places = np.searchsorted(self._cumulated, low + (high - low) * rng.random(n), side="right") - 1
        uniform = kind >= _TASTE_SHARE + _POPULAR_SHARE
        places = np.where(uniform, rng.integers(self.size.items, size=n), places)
        return np.asarray(self._by_cluster[np.minimum(places, self.size.items - 1)])


def write_shop(size: ShopSize, folder: Path, progress: Progress = silent) -> None:
    """Write shop.inter and item_feat.npy; the same bytes for the same size and seed.

    Args:
        size: users, items, interactions, seed.
        folder: the folder to write to.
        progress: called after each block of items and of users.
    """
    shop, done = LargeShop(size), 0
    storage.make_folder(folder)
    with storage.atomic(folder / f"{FEATURE}.npy") as temporary:
        shape = (size.items, size.width)
        table = np.lib.format.open_memmap(temporary, "w+", dtype=np.float32, shape=shape)
        for block in shop.vectors():
            table[done : done + len(block)] = block
            done += len(block)
            progress("write vectors", done, size.items)
        table.flush()
    done = 0
    with storage.atomic(folder / "shop.inter") as temporary, temporary.open("wb") as file:
        for n, rows in enumerate(shop.interactions()):
            rows.write_csv(file, separator="\t", include_header=n == 0)
            done += len(rows)
            progress("write interactions", done, size.interactions)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a shop as the command line names it; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate a large shop with given item vectors.")
    for name in ("users", "items", "interactions"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--width", type=int, default=384, help="columns of the item vectors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        size = ShopSize(options.users, options.items, options.interactions, options.width, options.seed)
        write_shop(size, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {size.users:,} users, {size.items:,} items, {size.interactions:,} interactions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
