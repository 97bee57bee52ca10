"""What customers would see as a whole: how much of the catalogue, how popular, how new.

With n_i training interactions of item i among U users, and the head the most popular fifth of the items:

    coverage      items in anybody's list / items
    head share    places in lists that the head takes / places
    novelty       mean over places of -log2((n_i + 1) / (U + 1)), bits: how surprising an item is (self-information,
                  Zhou et al. 2010, counts smoothed by one)
    Gini          of how often items are listed: 0 all alike, 1 one item alone
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.dataset import Dataset
from mllmrec.recommend import Recommendations
from mllmrec.report.figures import bars

HEAD = 0.2  # share of the items that make the head
_PARTS = 5  # of the items by popularity that are drawn
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """How a set of places (in lists, or in training histories) lies over the catalogue.

    Attributes:
        places: how many.
        coverage, head_share, novelty, gini: see the module; NaN without places.
        cold_share: places of items without a training interaction / places.
        fifths: [5] share of the places by popularity, the most popular fifth of the items first.
    """

    places: int
    coverage: float
    head_share: float
    novelty: float
    gini: float
    cold_share: float
    fifths: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ListMeasures:
    """Recommendations beside the training interactions they were learnt from.

    Attributes:
        users: users with a list.
        unknown: of them, those without a training item, who are shown what is popular.
        length: places of the longest list.
        shown, bought: how recommendations and training interactions lie over the catalogue.
    """

    users: int
    unknown: int
    length: int
    shown: Spread
    bought: Spread

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(measure, recommended, training interactions, how to read it) for a person."""
        shown, bought = self.shown, self.bought
        return [
            ("coverage", f"{shown.coverage:.1%}", f"{bought.coverage:.1%}", "of the catalogue is in somebody's list"),
            (
                f"share of the head, {HEAD:.0%} of the items",
                f"{shown.head_share:.1%}",
                f"{bought.head_share:.1%}",
                "above the training share: popular items are pushed further",
            ),
            ("novelty, bits", f"{shown.novelty:.2f}", f"{bought.novelty:.2f}", "higher: less popular items"),
            ("Gini of the items", f"{shown.gini:.2f}", f"{bought.gini:.2f}", "0: all alike, 1: one item alone"),
            (
                "places of cold items",
                f"{shown.cold_share:.1%}",
                f"{bought.cold_share:.1%}",
                "items without a training interaction",
            ),
        ]

    def plot(self) -> Markup:
        """Where the places go, by popularity of the items."""
        groups = [f"{100 * n // _PARTS}-{100 * (n + 1) // _PARTS} %" for n in range(_PARTS)]
        series = {"recommended": self.shown.fifths, "training interactions": self.bought.fifths}
        return bars(
            groups,
            {label: [(100 * share,) for share in shares] for label, shares in series.items()},
            xlabel="items by popularity, the most popular first",
            ylabel="places, %",
            name="popularity of what is recommended",
        )


def measure_lists(dataset: Dataset, made: Recommendations) -> ListMeasures:
    """Measure the recommendations of a run."""
    train = np.bincount(dataset.histories("train").items, minlength=dataset.n_items)
    index = {item: n for n, item in enumerate(dataset.item_ids.to_list())}
    listed = made.users["item"].value_counts()
    shown = np.zeros(dataset.n_items, dtype=np.int64)
    shown[[index[item] for item in listed["item"]]] = listed["count"].to_numpy()
    unknown = made.users.filter(made.users["source"] == "popularity")["user"].n_unique()
    length = made.users["rank"].max()
    return ListMeasures(
        users=made.users["user"].n_unique(),
        unknown=unknown,
        length=int(length) if isinstance(length, int) else 0,
        shown=spread(shown, train, dataset.n_users),
        bought=spread(train, train, dataset.n_users),
    )


def spread(places: Counts, train: Counts, users: int) -> Spread:
    """How places lie over the catalogue.

    Args:
        places: int64 [I] how often each item stands in a list.
        train: int64 [I] training interactions.
        users: U.
    """
    total, n = int(places.sum()), len(places)
    if total == 0:
        nan = float("nan")
        return Spread(0, 0.0, nan, nan, nan, nan, (0.0,) * _PARTS)
    by_popularity = places[np.argsort(-train, kind="stable")]
    share = by_popularity / total
    bits = -np.log2((train + 1) / (users + 1))
    ordered = np.sort(places)
    edges = np.linspace(0, n, _PARTS + 1).round().astype(int)
    return Spread(
        places=total,
        coverage=float((places > 0).mean()),
        head_share=float(share[: max(1, round(HEAD * n))].sum()),
        novelty=float(places @ bits / total),
        gini=float(((2 * np.arange(1, n + 1) - n - 1) @ ordered) / (n * total)),
        cold_share=float(places[train == 0].sum() / total),
        fifths=tuple(float(share[start:stop].sum()) for start, stop in pairwise(edges)),
    )
