"""What each study varies: its points, as settings on top of the config that it starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError
from mllmrec.experiments.entries import ENTRIES, Candidate, Entry
from mllmrec.reason.prompts import Ask, shipped

_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NEIGHBOURS = (0, 5, 10, 20)
_DAYS = (1, 7, 30, 90, 365)
_PLACES = (1, 2, 3, 5, 10)
_DAY = 86_400  # seconds
_FIRST_UNIX_SECOND = 10**8  # of 1973; lower numbers order a user's rows and are no times
_PROPAGATED = ("model.user_item_layers=2",)
_LEAK = ("profile.history=all",)

PROFILES, MEANS, HONEST, LEAKED = "profiles", "means of items", "honest", "LEAKY"
WITH_GCN = " + user-item GCN"


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a study.

    Attributes:
        label: what the table prints.
        settings: as `--set` takes them.
        at: its place on each axis, where the study has axes.
    """

    label: str
    settings: Candidate = ()
    at: tuple[float, ...] = ()

    @property
    def leaky(self) -> bool:
        """Whether its profiles see held-out interactions."""
        return _LEAK[0] in self.settings


Points = tuple[Point, ...]


def alphas(_: Config, __: Dataset) -> Points:
    """The denoising threshold of method 2.5."""
    return tuple(Point(f"{alpha}", (f"graph.threshold={alpha}",), (alpha,)) for alpha in _ALPHAS)


def neighbours(_: Config, __: Dataset) -> Points:
    """K_s x K_c; a 0 leaves that half of the graph out."""
    return tuple(
        Point(
            f"K_s {semantic}, K_c {shared}",
            (f"graph.semantic_neighbours={semantic}", f"graph.cooccurrence_neighbours={shared}"),
            (semantic, shared),
        )
        for semantic in _NEIGHBOURS
        for shared in _NEIGHBOURS
    )


def windows(_: Config, dataset: Dataset) -> Points:
    """How far apart in time a user's two items may be to count as a co-occurrence; any distance last.

    Days where the dataset knows times, places in a user's order where it knows that alone. A window that no
    training history exceeds is the same as none, and is left out.

    Raises:
        InputError: the dataset has neither.
    """
    training = dataset.histories("train")
    if training.times is None:
        raise InputError(
            f"{dataset.folder} has no time for every training interaction, and a window is one of time; prepare it "
            "with --column timestamp=NAME"
        )
    known = bool(training.times.max() > _FIRST_UNIX_SECOND)
    unit, steps, scale = ("days", _DAYS, _DAY) if known else ("places", _PLACES, 1)
    filled = np.flatnonzero(np.diff(training.indptr) > 0)
    longest = (training.times[training.indptr[filled + 1] - 1] - training.times[training.indptr[filled]]).max()
    shorter = [step for step in steps if step * scale < longest]
    limited = [
        Point(f"{step} {unit if step > 1 else unit[:-1]}", (f"graph.window={step * scale}",), (step,))
        for step in shorter
    ]
    return (*limited, Point("any", ("graph.window=0",), (float("inf"),)))


def ablations(_: Config, __: Dataset) -> Points:
    """MLLMRec and its variants as `mllmrec compare` has them, without what is tuned there."""
    variants = [entry for entry in ENTRIES if "model.kind=mllmrec" in entry.grid[0] and not entry.leaky]
    return tuple(Point(entry.title.strip(), _fixed(entry)) for entry in variants)


def _fixed(entry: Entry) -> Candidate:
    """What all of an entry's candidates share."""
    return tuple(setting for setting in entry.grid[0] if all(setting in candidate for candidate in entry.grid))


def wordings(config: Config, dataset: Dataset) -> Points:
    """The configured wordings, and each other one that ships in the place of one of them.

    Raises:
        ConfigError: no stage asks a model.
    """
    asked = _asked(config, dataset)
    if not asked:
        raise ConfigError(
            "study prompts compares the wordings that a multimodal model is asked with, and no stage asks one here: "
            "set describe.engine or profile.engine to transformers or openai, and describe.model"
        )
    own: dict[Ask, str] = {"describe": config.describe.template, "profile": config.profile.template}
    points = [Point(", ".join(f"{ask} {own[ask]}" for ask in asked))]
    for ask in asked:
        others = [name for name in shipped(ask) if name != own[ask]]
        points += [Point(f"{ask} {name}", (f"{ask}.template={name}",)) for name in others]
    return tuple(points)


def _asked(config: Config, dataset: Dataset) -> list[Ask]:
    """The stages whose wording reaches a model."""
    asked: list[Ask] = []
    pictured = bool((dataset.items["images"].list.len() > 0).any())
    if config.describe.engine != "extractive" and config.describe.images and pictured:
        asked.append("describe")
    if config.profile.engine != "extractive" and config.profile.kind != "mean":
        asked.append("profile")
    return asked


def leaks(_: Config, __: Dataset) -> Points:
    """Profiles of training items against those of all items (method 3.1), alone and with GCN_UI."""
    return (
        Point(HONEST),
        Point(HONEST + WITH_GCN, _PROPAGATED),
        Point(LEAKED, _LEAK),
        Point(LEAKED + WITH_GCN, _LEAK + _PROPAGATED),
    )


def architectures(config: Config, _: Dataset) -> Points:
    """With and without GCN_UI (method 2.8), by profiles and by the means of the users' items.

    Raises:
        ConfigError: the users have no profiles.
    """
    if config.profile.kind == "mean" or not config.model.reasoning:
        raise ConfigError(
            "study architecture asks what the profiles are worth, and users stand as the means of their items here: "
            'set profile.kind back to "text" and model.reasoning to true'
        )
    means = ("model.reasoning=false",)
    return (
        Point(PROFILES),
        Point(PROFILES + WITH_GCN, _PROPAGATED),
        Point(MEANS, means),
        Point(MEANS + WITH_GCN, means + _PROPAGATED),
    )


def as_it_is(_: Config, __: Dataset) -> Points:
    """The config itself: the study of seeds."""
    return (Point("seed"),)
