"""The models of a comparison, and the grid that each is tuned over.

A grid point is a list of settings as `--set` takes them. Every kind of model in the registry has an entry; its grid is
the kind's own `candidates`. Each model's own most telling setting is varied, as in its paper; everything else stays at
the defaults. The ensemble's rivals have nine points. The ensemble itself tries as many for its parts (four ridges, two
factorizations, three filters) before it searches its weights. Networks vary their learning rate beside their own
setting, for it matters as much. The ridges, which are parts of the ensemble, have three points, MLLMRec and its
ablations four. RIVALS run only where they are named, for they take long: linear ones have nine points, and choose a
half-life within each fit; ELSA has six, AlphaRec and SASRec four, wide iALS three. The ensemble of rivals tries nine
settings for its parts. PARTS, the ensemble without each of its parts, run only where they are named as well. The
item-kNN of every evaluation has no settings (models/baselines.py); the one here chooses weighting and neighborhood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mllmrec.errors import InputError, near_miss
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models import registry

Settings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the comparison.

    Attributes:
        name: as --models takes it.
        kind: of model; empty: an untrained baseline.
        label: as the table prints it; empty: the title of the kind.
        fixed: settings of every grid point.
        varied: further settings of each point, the first are the default; None: the candidates of the kind.
        leaky: user vectors see held-out items; never the best, marked in the table.
    """

    name: str
    kind: str = ""
    label: str = ""
    fixed: Settings = ()
    varied: tuple[Settings, ...] | None = None
    leaky: bool = False

    @property
    def title(self) -> str:
        """The name that the table prints."""
        return self.label or registry.title(self.kind)

    @property
    def reads(self) -> frozenset[str]:
        """Return what the model reads beside the interactions: "items", "users", "graph"."""
        if not self.kind:
            return frozenset({"items"} if self.name == "content" else ())
        return registry.reads(self.kind)

    @property
    def grid(self) -> tuple[Settings, ...]:
        """The settings of each point; the first is the default."""
        if not self.kind:
            return ((),)
        return tuple((f"model.kind={self.kind}", *self.fixed, *settings) for settings in self._varied)

    @property
    def _varied(self) -> tuple[Settings, ...]:
        return tuple(registry.find(self.kind).candidates) if self.varied is None else self.varied

    def first(self, most: int) -> Entry:
        """Return the entry with at most so many points of its grid, the first ones."""
        return replace(self, varied=self._varied[:most]) if self.kind else self

    @property
    def fitting(self) -> Literal["baseline", "closed", "trained"]:
        """Return "baseline" without settings, "closed" if nothing is random, "trained" if the seed matters."""
        if not self.kind:
            return "baseline"
        return "trained" if registry.find(self.kind).is_random else "closed"


_EASE = tuple((f"model.regularization={lam}",) for lam in (200, 100, 400, 50, 20, 150, 300, 600, 1000))
_REFINED = ("model.refined=true",)
ENTRIES: tuple[Entry, ...] = (
    Entry("popularity", label="popularity"),
    Entry("content", label="content, untrained"),
    Entry("content-whitened", "content", "content, half-whitened", ("model.space=half-whitened",), ((),)),
    Entry("content-projected", "content", "content, projected", ("model.space=projected",), ((),)),
    Entry("item-knn", "item-knn", "item-kNN"),
    Entry("bpr", "bpr"),
    Entry("vbpr", "vbpr"),
    Entry("lightgcn", "lightgcn"),
    Entry("lightgcn-gr", "lightgcn", "LightGCN +GR", _REFINED),
    Entry("freedom", "freedom"),
    Entry("freedom-gr", "freedom", "FREEDOM +GR", _REFINED),
    Entry("ease", "ease", "EASE", ("model.content_weight=0",), _EASE),
    Entry("ease-content", "ease", "EASE + content"),
    Entry("ease-neighbors", "ease-neighbors"),
    Entry("clcrec", "clcrec"),
    Entry("ridge-30", "ridge", "ridge 30+30", ("model.cooccurrence_support=30", "model.semantic_support=30")),
    Entry("ridge", "ridge", "ridge 100+100", ("model.cooccurrence_support=100", "model.semantic_support=100")),
    Entry("ials", "ials"),
    Entry("ensemble", "ensemble", "ensemble (default)"),
    Entry("mllmrec", "mllmrec", "MLLMRec, fixed"),
    Entry("mllmrec-paper", "mllmrec", "MLLMRec, paper", ("graph.mode=paper",)),
    Entry("mllmrec-mean", "mllmrec", "  no reasoning (mean)", ("model.reasoning=false",)),
    Entry("mllmrec-no-items", "mllmrec", "  no item propagation", ("train.layers=0",)),
    Entry("mllmrec-no-denoising", "mllmrec", "  no denoising", ("graph.threshold=-1",)),
    Entry("mllmrec-no-enhancement", "mllmrec", "  no enhancement", ("graph.cooccurrence_neighbors=0",)),
    Entry("mllmrec-ui", "mllmrec", "  + user-item GCN", ("model.user_item_layers=2",)),
    Entry("mllmrec-ids", "mllmrec", "  + id embeddings", ("model.ids=true",)),
    Entry("mllmrec-leaky", "mllmrec", "MLLMRec LEAKY (mean)", leaky=True),
)
_AGED = ("model.half_lives=[0,1,2,4,8,16]",)
_WIDE = tuple(
    (f"model.unobserved_weight={w}", f"model.regularization={lam}") for w, lam in ((1, 0.05), (3, 0.05), (1, 0.02))
)
RIVALS: tuple[Entry, ...] = (
    Entry("item-knn-time", "item-knn", "item-kNN, half-life", _AGED),
    Entry("ease-content-time", "ease", "EASE + content, half-life", _AGED),
    Entry("ridge-time", "ridge", "ridge 100+100, half-life", _AGED),
    Entry("ensemble-timeless", "ensemble", "ensemble, time left out", ("model.half_lives=[0]",)),
    Entry("l3ae", "l3ae"),
    Entry("additive-ease", "additive-ease"),
    Entry("edlae", "edlae"),
    Entry("rdlae", "edlae", "RDLAE", ("model.diagonal_limit=0.5",)),
    Entry("mrf", "mrf"),
    Entry("sansa", "sansa"),
    Entry("gf-cf", "gf-cf"),
    Entry("turbo-cf", "turbo-cf"),
    Entry("mm-gf", "mm-gf"),
    Entry("elsa", "elsa"),
    Entry("ials-256", "ials", "iALS, 256 factors", ("model.factors=256",), _WIDE),
    Entry("ials-512", "ials", "iALS, 512 factors", ("model.factors=512",), _WIDE),
    Entry("alpharec", "alpharec"),
    Entry("transitions", "transitions"),
    Entry("sasrec", "sasrec"),
    Entry("rival-ensemble", "rival-ensemble"),
    Entry("rival-ensemble-linear", "rival-ensemble", "ensemble of rivals, no networks", ("model.networks=false",)),
)
_LEFT_OUT = ("ridge", "item-kNN", "transitions", "projection", "factors", "graph filter", "content", "popularity")
PARTS: tuple[Entry, ...] = (
    *(
        Entry(
            f"ensemble-no-{part.lower().replace(' ', '-')}",
            "ensemble",
            f"  without {part}",
            (f'model.left_out=["{part}"]',),
        )
        for part in _LEFT_OUT
    ),
    Entry("ensemble-no-new-items", "ensemble", "  without places of new items", ("model.new_items=0",)),
)
GROUPS = {"rivals": RIVALS, "parts": PARTS}  # the names that stand for all of a group


def all_entries() -> tuple[Entry, ...]:
    """Return ENTRIES, one entry of every kind of model that has none, and the groups."""
    grouped = [entry for entries in GROUPS.values() for entry in entries]
    listed = {entry.kind for entry in (*ENTRIES, *grouped)}
    return (*ENTRIES, *(Entry(kind, kind) for kind in registry.kinds() if kind not in listed), *grouped)


def choose_entries(names: Sequence[str]) -> tuple[Entry, ...]:
    """Return the named entries in the table's order; all but those of the groups if nothing is named.

    Raises:
        InputError: there is no such model.
    """
    groups = {name: [entry.name for entry in entries] for name, entries in GROUPS.items()}
    known = [entry.name for entry in all_entries()]
    for name in names:
        if name not in known and name not in groups:
            raise InputError(
                f"there is no model {name!r} to compare{near_miss(name, known)}; there are {', '.join(known)}, and "
                "rivals and parts, which stand for those that run only where they are named"
            )
    of_groups = {own for name, entries in groups.items() for own in entries if not names or name in names}
    chosen = {*names, *of_groups} if names else set(known) - of_groups
    return tuple(entry for entry in all_entries() if entry.name in chosen)


def first_settings(entries: Sequence[Entry], most: int, progress: Progress = silent) -> tuple[Entry, ...]:
    """Return the entries with the first settings of their grids alone.

    Args:
        entries: the models to compare.
        most: settings of each, at least 1.
        progress: called for each model that loses some.
    """
    for entry in entries:
        if len(entry.grid) > most:
            progress(f"{entry.name}: the first {most} of {len(entry.grid)} settings", 1, 1)
    return tuple(entry.first(most) for entry in entries)
