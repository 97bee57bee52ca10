"""The grid of each study: points of settings on top of the config that it starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError
from mllmrec.experiments.entries import ENTRIES, Settings
from mllmrec.reason.prompts import PromptStage, shipped_templates, standard_template

_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NEIGHBORS = (0, 5, 10, 20)
_DAYS = (1, 7, 30, 90, 365)
_PLACES = (1, 2, 3, 5, 10)
_DAY = 86_400  # seconds
_FIRST_UNIX_SECOND = 10**8  # of 1973; lower numbers order a user's rows and are no times
_PROPAGATED = ("model.user_item_layers=2",)
_LEAK = ("profile.history=all",)

PROFILES, MEANS, LEAK_FREE, LEAKED = "profiles", "means of items", "leak-free", "LEAKY"
WITH_GCN = " + user-item GCN"


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One point of a grid.

    Attributes:
        name: of the setting, or of the model; unique in the grid.
        settings: as `--set` takes them.
        at: its place on each axis, if the grid has axes.
        title: the printed name, if it is another.
        leaky: whether its profiles see held-out interactions.
    """

    name: str
    settings: Settings = ()
    at: tuple[float, ...] = ()
    title: str = ""
    leaky: bool = False


Points = tuple[GridPoint, ...]


def alphas(_: Config, __: Dataset) -> Points:
    """Return values of the item graph's denoising threshold."""
    return tuple(GridPoint(f"{alpha}", (f"graph.threshold={alpha}",), (alpha,)) for alpha in _ALPHAS)


def neighbors(_: Config, __: Dataset) -> Points:
    """Return all pairs of K_s and K_c; 0 leaves out that half of the graph."""
    return tuple(
        GridPoint(
            f"K_s {semantic}, K_c {shared}",
            (f"graph.semantic_neighbors={semantic}", f"graph.cooccurrence_neighbors={shared}"),
            (semantic, shared),
        )
        for semantic in _NEIGHBORS
        for shared in _NEIGHBORS
    )


def windows(_: Config, dataset: Dataset) -> Points:
    """Return windows of time within which two items of a user count as a co-occurrence; the last has no limit.

    The unit is days where the dataset has times, and places in a user's order if it has only that. A window
    that no training history exceeds is the same as none, and is left out.

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
        GridPoint(f"{step} {unit if step > 1 else unit[:-1]}", (f"graph.window={step * scale}",), (step,))
        for step in shorter
    ]
    return (*limited, GridPoint("any", ("graph.window=0",), (float("inf"),)))


def ablations(_: Config, __: Dataset) -> Points:
    """Return MLLMRec and its variants as `mllmrec compare` has them, without what is tuned there."""
    variants = [entry for entry in ENTRIES if entry.kind == "mllmrec" and not entry.leaky]
    return tuple(GridPoint(entry.title.strip(), ("model.kind=mllmrec", *entry.fixed)) for entry in variants)


def wordings(config: Config, dataset: Dataset) -> Points:
    """Return the configured prompts, and variants with one prompt replaced by another shipped one.

    Raises:
        ConfigError: no stage prompts a model.
    """
    stages = _prompted(config, dataset)
    if not stages:
        raise ConfigError(
            "study prompts compares the prompts of a multimodal model, and no stage uses one: "
            "set describe.engine or profile.engine to transformers or openai, and describe.model"
        )
    own: dict[PromptStage, str] = {
        "describe": config.describe.template,
        "profile": standard_template(config.profile.template),
    }
    points = [GridPoint(", ".join(f"{stage} {own[stage]}" for stage in stages))]
    for stage in stages:
        others = [name for name in shipped_templates(stage) if name != own[stage]]
        points += [GridPoint(f"{stage} {name}", (f"{stage}.template={name}",)) for name in others]
    return tuple(points)


def _prompted(config: Config, dataset: Dataset) -> list[PromptStage]:
    """Return the stages whose prompt reaches a model."""
    stages: list[PromptStage] = []
    pictured = bool((dataset.items["images"].list.len() > 0).any())
    if config.describe.engine != "extractive" and config.describe.images and pictured:
        stages.append("describe")
    if config.profile.engine != "extractive" and config.profile.kind != "mean":
        stages.append("profile")
    return stages


def leaks(_: Config, __: Dataset) -> Points:
    """Return profiles of training items against those of all items, each without and with user-item propagation."""
    return (
        GridPoint(LEAK_FREE),
        GridPoint(LEAK_FREE + WITH_GCN, _PROPAGATED),
        GridPoint(LEAKED, _LEAK, leaky=True),
        GridPoint(LEAKED + WITH_GCN, _LEAK + _PROPAGATED, leaky=True),
    )


def architectures(config: Config, _: Dataset) -> Points:
    """Return profiles and means of the users' items, each without and with user-item propagation.

    Raises:
        ConfigError: the users have no profiles.
    """
    if config.profile.kind == "mean" or not config.model.identity()["reasoning"]:
        raise ConfigError(
            "study architecture measures what the profiles are worth, and users are the means of their items here: "
            'set profile.kind back to "text" and model.reasoning to true'
        )
    means = ("model.reasoning=false",)
    return (
        GridPoint(PROFILES),
        GridPoint(PROFILES + WITH_GCN, _PROPAGATED),
        GridPoint(MEANS, means),
        GridPoint(MEANS + WITH_GCN, means + _PROPAGATED),
    )


def unchanged(_: Config, __: Dataset) -> Points:
    """Return the config itself: the study of seeds."""
    return (GridPoint("seed"),)
