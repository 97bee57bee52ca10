"""Who is compared, and the grid that each is tuned over.

A candidate is a list of settings as `--set` takes them. Each model's own most telling setting is varied, as its
paper does; everything else stays at the defaults. The blend's rivals have nine candidates, as many as the blend tries
for its own parts (four ridges, two factorisations, three filters) before it searches its weights: networks vary
their learning rate beside their own setting, for it tells as much. The ridges, which are parts of the blend, have
three, MLLMRec and its ablations four. The item-kNN of every evaluation has no settings (models/baselines.py); the one
here chooses weighting and neighbourhood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mllmrec.errors import InputError, near_miss

Candidate = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the comparison.

    Attributes:
        name: what --models takes.
        title: what the table prints.
        grid: candidates; the first is the default.
        fitting: "baseline" has no settings, "closed" none that is random, "trained" depends on the seed.
        leaky: user vectors see held-out items; never chosen as the best, marked in the table.
    """

    name: str
    title: str
    grid: tuple[Candidate, ...] = ((),)
    fitting: Literal["baseline", "closed", "trained"] = "trained"
    leaky: bool = False


def _vary(fixed: Candidate, *candidates: Candidate) -> tuple[Candidate, ...]:
    return tuple((*fixed, *candidate) for candidate in candidates)


def _rates(*fixed: str) -> tuple[Candidate, ...]:
    return _vary(fixed, *((f"train.learning_rate={rate}",) for rate in (1e-3, 5e-4, 2e-3, 5e-3)))


_STRENGTHS = ((20, 50), (20, 100), (40, 100))
_MORE = ((40, 200), (100, 200), (10, 50), (10, 100), (40, 400), (100, 400))


def _with_rates(*fixed: str, setting: str, values: Sequence[float]) -> tuple[Candidate, ...]:
    tried = ((value, rate) for value in values for rate in (1e-3, 3e-3, 1e-2))
    return _vary(fixed, *((f"{setting}={value}", f"train.learning_rate={rate}") for value, rate in tried))


def _decays(*fixed: str, values: Sequence[float] = (1e-4, 1e-3, 1e-2)) -> tuple[Candidate, ...]:
    return _with_rates(*fixed, setting="model.decay", values=values)


def _neighbours() -> tuple[Candidate, ...]:
    tried = ((weighting, k) for weighting in ("tfidf", "cosine", "bm25") for k in (200, 1000, 50))
    return _vary(("model.kind=item-knn",), *((f"model.weighting={w}", f"model.neighbours={k}") for w, k in tried))


def _content(*fixed: str, more: Sequence[tuple[int, int]] = ()) -> tuple[Candidate, ...]:
    strengths = (*_STRENGTHS, *more)
    return _vary(fixed, *((f"model.content_weight={w}", f"model.regularisation={lam}") for w, lam in strengths))


def _factors(*fixed: str) -> tuple[Candidate, ...]:
    strengths = ((w, lam) for lam in (0.05, 0.03, 0.02) for w in (1, 3, 10))
    return _vary(fixed, *((f"model.unobserved={w}", f"model.shrinkage={lam}") for w, lam in strengths))


def _freedom(*fixed: str) -> tuple[Candidate, ...]:
    return _with_rates(*fixed, setting="model.feature_loss", values=(1e-3, 1e-5, 1e-1))


_MEAN = "model.reasoning=false"
ENTRIES: tuple[Entry, ...] = (
    Entry("popularity", "popularity", fitting="baseline"),
    Entry("content", "content, untrained", fitting="baseline"),
    Entry("item-knn", "item-kNN", _neighbours(), "closed"),
    Entry("bpr", "BPR-MF", _decays("model.kind=bpr", values=(1e-2, 2e-2, 1e-3))),
    Entry("vbpr", "VBPR", _decays("model.kind=vbpr")),
    Entry("lightgcn", "LightGCN", _decays("model.kind=lightgcn")),
    Entry("lightgcn-gr", "LightGCN +GR", _decays("model.kind=lightgcn", "model.refined=true")),
    Entry("freedom", "FREEDOM", _freedom("model.kind=freedom")),
    Entry("freedom-gr", "FREEDOM +GR", _freedom("model.kind=freedom", "model.refined=true")),
    Entry(
        "ease",
        "EASE",
        _vary(
            ("model.kind=ease", "model.content_weight=0"),
            *((f"model.regularisation={lam}",) for lam in (200, 100, 400, 50, 20, 150, 300, 600, 1000)),
        ),
        "closed",
    ),
    Entry("ease-content", "EASE + content", _content("model.kind=ease", more=_MORE), "closed"),
    Entry(
        "ridge-30",
        "ridge 30+30",
        _content("model.kind=ridge", "model.cooccurrence_support=30", "model.semantic_support=30"),
        "closed",
    ),
    Entry(
        "ridge",
        "ridge 100+100",
        _content("model.kind=ridge", "model.cooccurrence_support=100", "model.semantic_support=100"),
        "closed",
    ),
    Entry("ials", "iALS", _factors("model.kind=ials")),
    Entry("blend", "blend (default)", (("model.kind=blend",),)),
    Entry("mllmrec", "MLLMRec, fixed", _rates("model.kind=mllmrec")),
    Entry("mllmrec-paper", "MLLMRec, paper", _rates("model.kind=mllmrec", "graph.mode=paper")),
    Entry("mllmrec-mean", "  no reasoning (mean)", _rates("model.kind=mllmrec", _MEAN)),
    Entry("mllmrec-no-items", "  no item propagation", _rates("model.kind=mllmrec", "train.layers=0")),
    Entry("mllmrec-no-denoising", "  no denoising", _rates("model.kind=mllmrec", "graph.threshold=-1")),
    Entry(
        "mllmrec-no-enhancement",
        "  no enhancement",
        _rates("model.kind=mllmrec", "graph.cooccurrence_neighbours=0"),
    ),
    Entry("mllmrec-ui", "  + user-item GCN", _rates("model.kind=mllmrec", "model.user_item_layers=2")),
    Entry("mllmrec-ids", "  + id embeddings", _rates("model.kind=mllmrec", "model.ids=true")),
    Entry("mllmrec-leaky", "MLLMRec LEAKY (mean)", _rates("model.kind=mllmrec"), leaky=True),
)


def choose_entries(names: Sequence[str]) -> tuple[Entry, ...]:
    """The named entries in the table's order; all of them where nothing is named.

    Raises:
        InputError: there is no such model.
    """
    known = {entry.name: entry for entry in ENTRIES}
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no model {name!r} to compare{near_miss(name, known)}; there are {', '.join(known)}"
            )
    return tuple(entry for entry in ENTRIES if not names or entry.name in names)
