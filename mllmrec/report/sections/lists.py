"""The recommended lists as a whole: share of the catalogue, popularity, novelty.

With n_i training interactions of item i among U users, and the head the most popular fifth of the items:

    coverage      items in anybody's list / items
    head share    places in lists that the head takes / places
    novelty       mean over places of -log2((n_i + 1) / (U + 1)), bits: how surprising an item is (self-information,
                  Zhou et al. 2010, counts smoothed by one)
    Gini          of how often items are listed: 0 all alike, 1 one item alone
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.dataset import Dataset
from mllmrec.evaluation.metrics import ABSENT, decimals
from mllmrec.recommend import Recommendations
from mllmrec.report.figures import bar_chart

HEAD = 0.2  # share of the items that make the head
_PARTS = 5  # of the items by popularity that are drawn
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of places (in lists, or in training histories) over the catalogue.

    Attributes:
        places: their number.
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
    """Measures of recommendations beside those of the training interactions.

    Attributes:
        users: users with a list.
        unknown: of them, those without a training item, who are shown what is popular.
        length: places of the longest list.
        shown, bought: distributions of recommendations and of training interactions over the catalogue.
    """

    users: int
    unknown: int
    length: int
    shown: Spread
    bought: Spread

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (measure, recommended, training interactions, reading)."""
        shown, bought = self.shown, self.bought
        return [
            ("coverage", _share(shown.coverage), _share(bought.coverage), "of the catalogue is in somebody's list"),
            (
                f"share of the head, {HEAD:.0%} of the items",
                _share(shown.head_share),
                _share(bought.head_share),
                "above the training share: popular items are pushed further",
            ),
            ("novelty, bits", decimals(shown.novelty, 2), decimals(bought.novelty, 2), "higher: less popular items"),
            ("Gini of the items", decimals(shown.gini, 2), decimals(bought.gini, 2), "0: all alike, 1: one item alone"),
            (
                "places of cold items",
                _share(shown.cold_share),
                _share(bought.cold_share),
                "items without a training interaction",
            ),
        ]

    def plot(self) -> Markup:
        """Draw the places by popularity of the items."""
        groups = [f"{100 * n // _PARTS}-{100 * (n + 1) // _PARTS} %" for n in range(_PARTS)]
        series = {"recommended": self.shown.fifths, "training interactions": self.bought.fifths}
        return bar_chart(
            groups,
            {label: [(100 * share,) for share in shares] for label, shares in series.items()},
            xlabel="items by popularity, the most popular first",
            ylabel="places, %",
            name="popularity of what is recommended",
        )


def _share(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.1%}"


def measure_lists(dataset: Dataset, lists: Recommendations) -> ListMeasures:
    """Measure the recommendations of a run."""
    train = np.bincount(dataset.histories("train").items, minlength=dataset.n_items)
    index = {item: n for n, item in enumerate(dataset.item_ids.to_list())}
    listed = lists.users["item"].value_counts()
    shown = np.zeros(dataset.n_items, dtype=np.int64)
    shown[[index[item] for item in listed["item"]]] = listed["count"].to_numpy()
    unknown = lists.users.filter(lists.users["source"] == "popularity")["user"].n_unique()
    length = lists.users["rank"].max()
    return ListMeasures(
        users=lists.users["user"].n_unique(),
        unknown=unknown,
        length=int(length) if isinstance(length, int) else 0,
        shown=spread(shown, train, dataset.n_users),
        bought=spread(train, train, dataset.n_users),
    )


def spread(places: Counts, train: Counts, users: int) -> Spread:
    """Measure the distribution of places over the catalogue.

    Args:
        places: int64 [I], lists that each item stands in.
        train: int64 [I], training interactions.
        users: their number U.
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
