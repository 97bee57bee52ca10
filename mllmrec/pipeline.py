"""Run the stages in the order data flows.

    describe -> profile -> encode -> graph -> train -> evaluate -> recommend

Each stage is a pure function from artefacts to one artefact. `_stages` calls the seven in order. `_INPUTS` lists what
each result depends on. `Run.step` loads a result that an earlier start made from the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mllmrec.blocks.stage import check_engine, open_launcher
from mllmrec.config import Config, load_config, override
from mllmrec.dataset import Dataset, load
from mllmrec.errors import ConfigError, InputError
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.features.encode import Features
from mllmrec.features.encoder import Encoder, check_encoder
from mllmrec.foundation import storage
from mllmrec.foundation.addresses import fetched, mirrored, parse_address
from mllmrec.foundation.memory import release_memory, return_large_blocks
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.graph.neighbors import WideLists
from mllmrec.models import registry
from mllmrec.models.base import FilePath
from mllmrec.models.fitting import fit_model, read_model
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.profile import Profiles
from mllmrec.recommend import Recommendations
from mllmrec.reuse import open_earlier
from mllmrec.runs import Run, open_run
from mllmrec.runs.record import STAGES, read_seal, seal_path
from mllmrec.runs.record import Stage as Stage
from mllmrec.stages import A, Work
from mllmrec.stages import Artefacts as Artefacts
from mllmrec.training import ranks

# What the result of each stage depends on. An earlier stage stands for the content of its files.
_INPUTS: Mapping[Stage, Callable[[Work], dict[str, Any]]] = {
    "describe": lambda work: {
        "config": work.config.describe.model_dump(exclude={"max_failures"}),
        "engine": work.engines.describe_fingerprint,
        "items": work.dataset.items_digest,
    },
    "profile": lambda work: {
        "config": work.config.profile.model_dump(exclude={"max_failures"}),
        "engine": work.engines.profile_fingerprint,
        "histories": work.profiled.digest,
        "items": work.dataset.items_digest,
        "describe": work.run.digest("describe"),
    },
    "encode": lambda work: {
        "config": work.config.encode.model_dump(exclude={"device"}),
        "encoder": "given" if work.config.encode.features else Encoder.identity(work.config.encode),
        "items": work.dataset.items_digest,
        "describe": work.run.digest("describe"),
        "profile": work.run.digest("profile"),
    },
    "graph": lambda work: {
        "config": work.config.graph.identity(),
        "histories": work.training.digest,
        "times": work.dataset.split_digest if work.config.graph.window else "",
        "encode": work.run.digest("encode"),
    },
    "train": lambda work: {
        "model": work.config.model.identity(),
        "config": work.config.train.identity(work.config.model.kind),
        "seed": work.config.seed,
        "split": work.dataset.split_digest,
        "encode": work.run.digest("encode"),
        "graph": work.run.digest("graph"),
    },
    "evaluate": lambda work: {
        "version": 4,
        "config": work.evaluate_settings,
        "split": work.dataset.split_digest,
        "encode": work.run.digest("encode"),
        "train": work.run.digest("train"),
    },
    "recommend": lambda work: {
        "config": work.config.recommend.model_dump(),
        "split": work.dataset.split_digest,
        "items": work.dataset.items_digest,
        "train": work.run.digest("train"),
    },
}


def run(
    dataset: Dataset | Path | str,
    out: Path | str,
    config: Config | None = None,
    *,
    until: Stage = "recommend",
    cache: Path | str | None = None,
    command: str = "",
    progress: Progress = silent,
    limits: GenerationLimits | None = None,
    earlier: Path | str | None = None,
    on: str = "",
) -> Artefacts:
    """Run the stages up to `until` into the folder `out`, or go on with an interrupted run there.

    Args:
        dataset: a prepared dataset, or its folder; s3://bucket/folder and the like are brought here.
        out: the run folder; in a store, each stage is taken there once it is done.
        config: one config per stage; None: the defaults.
        until: the last stage to run.
        cache: the generation cache; None: the user's own.
        command: the command line of this run, to be written down.
        progress: called by every stage.
        limits: limits and retries of describe and profile; a stage's own max_failures goes before.
        earlier: a finished run of the dataset that this one grew from (`update`): what did not change is taken over,
            and the model goes on from its own. A run remembers it. None: the one that it remembers, if any.
        on: computes in blocks of rows: "local" on processes of this machine, "ray" or "ray://HOST:PORT" on a cluster;
            empty: in this process. The artefacts are the same.

    Returns:
        The artefacts up to `until`.

    Raises:
        MllmrecError: whatever a stage refuses.
        LimitReached: `limits` has a limit, and a stage has requests left.
    """
    check_engine(on)
    return_large_blocks()
    resolved = config or load_config()
    _check_ranks(resolved)
    if earlier is not None and Path(earlier).resolve() == Path(out).resolve():
        raise InputError(f"{out} cannot go on from itself; name another --out")
    with ExitStack() as stack:
        stack.callback(ranks.leave)
        data = dataset if isinstance(dataset, Dataset) else load(stack.enter_context(fetched(dataset)))
        place, push = stack.enter_context(mirrored(out))
        resolved = _without_unread(resolved, place, until, progress)
        _check_encoder(resolved, until)
        folder = stack.enter_context(open_run(place, data, resolved, command, earlier))
        generations = stack.enter_context(open_cache(Path(cache) if cache else None))
        launcher = stack.enter_context(open_launcher(on))
        before = open_earlier(Path(folder.earlier), data, resolved) if folder.earlier else None
        wide = _wide_lists(resolved, until)
        work = Work(folder, data, resolved, generations, progress, limits or GenerationLimits(), before, launcher, wide)
        artefacts = Artefacts(folder)
        for stage in _stages(work, artefacts):
            if stage == "evaluate" and parse_address(out) is None:  # the files of a run in a store go at the end
                artefacts.evaluate.release()  # a row for each user and model, read to be checked
            release_memory()
            push(_files_of(folder, stage))
            if stage == until:
                break
        artefacts.notes = work.notes
    return artefacts


def follow(dataset: Path, out: Path, config: Config) -> None:
    """Train beside rank 0 of torchrun, on the artefacts of its run; write nothing.

    Args:
        dataset: the prepared dataset.
        out: the run folder of rank 0.
        config: the same as of rank 0.
    """
    _check_ranks(config)
    try:
        if ranks.wait():
            data, first = load(dataset), Run(out)
            profiled, seed = data.histories(config.profile.history), config.seed
            arguments = first.features, first.graph, data.histories("train"), data.matrix("valid")
            fit_model(*arguments, config.model, config.train, seed=seed, profiled=profiled)
    finally:
        ranks.leave()


def _check_ranks(config: Config) -> None:
    """Refuse several ranks for a model that one process fits.

    Raises:
        ConfigError: the model is no network.
    """
    if ranks.count() > 1 and not registry.find(config.model.kind).is_network:
        raise ConfigError(
            f"torchrun started {ranks.count()} processes, and model.kind={config.model.kind} is no network; run it "
            "without torchrun, and on a cluster with --on ray"
        )


def _wide_lists(config: Config, until: Stage) -> WideLists:
    """Return lists as long as the model of a run reads them; of their own length where no model is fitted."""
    if STAGES.index(until) < STAGES.index("train"):
        return WideLists()
    return WideLists(*(getattr(config.model, f"{kind}_support", 0) for kind in ("semantic", "cooccurrence")))


def _check_encoder(config: Config, until: Stage) -> None:
    """Refuse an encoder that cannot run here, before hours of describing and profiling are spent."""
    if STAGES.index(until) >= STAGES.index("encode") and not config.encode.features:
        check_encoder(config.encode)


def _files_of(run: Run, stage: Stage) -> list[Path]:
    """Return the files that a stage changed, its seal after what it seals."""
    outputs = [] if run.stages[stage]["reused"] else list(read_seal(run.folder, stage).outputs)
    names = [*(run.folder / stage / name for name in outputs), seal_path(run.folder, stage)]
    return [*names, run.folder / "config.toml", run.folder / "run.json"]


def _without_unread(config: Config, out: Path, until: Stage, progress: Progress) -> Config:
    """Return the config without profiles if its model reads no user vectors, and say so.

    Profiles that the folder has already stay, and those that are the last stage are made.

    Args:
        config: of the run.
        out: the run folder.
        until: the last stage to run.
        progress: called if profiles are left out.
    """
    kind = config.model.kind
    if until in ("describe", "profile") or config.profile.kind == "mean" or "users" in registry.reads(kind):
        return config
    if _profile_kind(out) not in ("", "mean"):
        return config
    progress(f"no profiles: {registry.title(kind)} reads no user vectors", 1, 1)
    return override(config, ["profile.kind=mean"])


def _profile_kind(folder: Path) -> str:
    """Return profile.kind of the profiles that a run folder has; empty if it has none."""
    path = seal_path(folder, "profile")
    if not path.is_file():
        return ""
    value = storage.read_json(path)
    inputs = value.get("inputs", {}) if isinstance(value, dict) else {}
    settings = inputs.get("config", {}) if isinstance(inputs, dict) else {}
    return str(settings.get("kind", "")) if isinstance(settings, dict) else ""


def _stages(work: Work, artefacts: Artefacts) -> Iterator[Stage]:
    """Make one artefact after the other; yield each stage when it is done."""

    def step(stage: Stage, read: Callable[[FilePath], A], make: Callable[[Path], A]) -> A:
        """Make or read one artefact.

        Args:
            stage: its name.
            read: reads what an earlier start made.
            make: makes it, given a folder for unfinished work.
        """
        return work.step(stage, _INPUTS[stage](work), read, make)

    artefacts.describe = step("describe", Descriptions.load, work.describe)
    yield "describe"
    artefacts.profile = step("profile", Profiles.load, lambda scratch: work.profile(artefacts.describe, scratch))
    yield "profile"
    work.engines.release()  # the memory of a language model's weights is needed from here on
    artefacts.encode = step(
        "encode",
        Features.load,
        lambda scratch: work.encode(artefacts.describe, artefacts.profile, scratch),
    )
    artefacts.encode = artefacts.encode.mapped(partial(work.run.file, "encode"), "users")
    yield "encode"
    artefacts.graph = step("graph", ItemGraph.load, lambda scratch: work.graph(artefacts.encode, scratch))
    yield "graph"
    artefacts.train = step(
        "train",
        partial(read_model, work.config.model),
        lambda scratch: work.train(artefacts.encode, artefacts.graph, scratch),
    ).model
    work.keeps_fit, work.could_keep = artefacts.train.refitted is not None, artefacts.train.keeps_refits
    yield "train"
    artefacts.evaluate = step(
        "evaluate",
        Evaluation.load,
        lambda scratch: work.evaluate(artefacts.encode, artefacts.train, scratch),
    )
    vectors, artefacts.encode = artefacts.encode, artefacts.encode.mapped(partial(work.run.file, "encode"), "items")
    if artefacts.train.item_features is vectors.items:
        artefacts.train.item_features = artefacts.encode.items  # lists read no item vectors
    del vectors
    yield "evaluate"
    artefacts.recommend = step(
        "recommend",
        Recommendations.load,
        lambda scratch: work.recommend(artefacts.train, scratch),
    )
    yield "recommend"
