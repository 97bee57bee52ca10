"""Measure where users' vectors may come from: counted texts, a language model's texts or states, means of items.

    make demo
    python -m bench.profile_sources demo/dataset --model smollm2-135m --write docs/results.md

Items' vectors and the item graph are the same for all sources of a dataset. Layer and pooling of the states are chosen
on validation by the first kind of model. A gain is over the means of items, of the same test users, with its 95 %
interval. The last source reads the held-out items too: LEAKY. Texts, states and judged models are kept in --out, so a
stopped measurement goes on.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from bench.given_vectors import METRICS, GivenItems, best_of, gain, mean_of, table
from bench.pictures import replaced
from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.dataset import Scope
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.metrics import short, written
from mllmrec.features.encode import Vectors, center_states
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.progress import silent
from mllmrec.foundation.storage import make_folder, read_array, write_array, write_text
from mllmrec.models import registry
from mllmrec.pipeline import run
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.engine import Pooling, Readout
from mllmrec.reason.profile import newest_items
from mllmrec.reason.requests import Engines
from mllmrec.stages import Artefacts

BEGIN, END = "<!-- profile sources: bench.profile_sources writes this table -->", "<!-- end of profile sources -->"
BASE = "means of items"
CENTERED = ", centered"  # states are, so the others are shown so too
EXTRACTIVE, TEXTS, STATES, LEAKY = "extractive texts", "the model's texts", "the model's states", "its texts, LEAKY"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print the table and write it where --write names a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+", help="prepared datasets")
    parser.add_argument("--model", default="smollm2-135m", help="as profile.model takes it")
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 20, -1], help="0: the embeddings, -1: the last")
    parser.add_argument("--out", type=Path, default=Path("profile-sources"), help="folder of all that is made")
    parser.add_argument("--kinds", nargs="+", default=["mllmrec", default_kind()], choices=registry.kinds())
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args(arguments)
    try:
        rows = [row for folder in options.datasets for row in measure(load(folder), options)]
        gains = [cell for metric in METRICS for cell in (written(metric), f"gain over {BASE}")]
        found = table(("data", "model", "users' vectors", *gains), rows)
        print(found)
        if options.write:
            write_text(options.write, replaced(options.write.read_text(encoding="utf-8"), found, BEGIN, END))
    except MllmrecError as error:
        print(f"profile sources: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: Dataset, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return the rows of one dataset: for each kind of model, each source of users' vectors."""
    maker = Maker(dataset, options)
    judged: dict[tuple[str, str], NDArray[np.float64]] = {}
    for source, make, scope in maker.sources():
        users = cache(make)
        for kind in options.kinds:
            judged[kind, source] = maker.given.judge(file_name(f"{kind} {source}"), users, kind, scope)
            print(f"{dataset.name}, {kind}, {source}", file=sys.stderr, flush=True)
    return [
        _row(dataset.name, kind, source, judged[kind, source], judged[kind, BASE])
        for kind in options.kinds
        for own, source in judged
        if own == kind
    ]


def file_name(words: str) -> str:
    """Return words as a file's name."""
    return re.sub(r"\W+", "-", words)


def layer_name(layer: int) -> str:
    """Return a layer in words."""
    return "last layer" if layer == -1 else f"layer {layer}"


def _row(name: str, kind: str, source: str, values: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[str, ...]:
    cells = []
    for metric in METRICS:
        cells += [short(mean_of(values, "test", metric)), "" if source == BASE else gain(values, base, metric)]
    return name, registry.title(kind), source, *cells


class Maker:
    """Make users' vectors from each source.

    Args:
        dataset: whose users they are.
        options: of the command line.
    """

    def __init__(self, dataset: Dataset, options: argparse.Namespace) -> None:
        self._dataset, self._options, self._folder = dataset, options, options.out / dataset.name
        self._generated = ["profile.engine=transformers", f"profile.model={options.model}", "profile.max_failures=1.0"]
        made = self._run("profile.kind=mean", until="encode")
        self.means, self._described = made.encode.users, made.describe
        self.given = GivenItems(dataset, made.encode.items, self._folder / "judged")

    def sources(self) -> Iterator[tuple[str, Callable[[], Vectors], Scope]]:
        """Yield the name of each source, what makes its users' vectors, and whose interactions they saw."""
        yield BASE, lambda: self.means, "train"
        yield EXTRACTIVE, self._encoded, "train"
        yield TEXTS, partial(self._encoded, *self._generated), "train"
        yield self._best_states()
        yield f"{BASE}{CENTERED}", lambda: center_states(self.means), "train"
        yield f"{TEXTS}{CENTERED}", lambda: center_states(self._encoded(*self._generated)), "train"
        yield LEAKY, partial(self._encoded, *self._generated, "profile.history=all"), "all"

    def _run(self, *settings: str, until: Any) -> Artefacts:
        config = load_config(None, [*settings, "model.kind=mllmrec"])
        out = self._folder / file_name(f"run {' '.join(settings)}")
        return run(self._dataset, out, config, until=until, cache=self._options.out / "texts.sqlite")

    def _encoded(self, *settings: str) -> Vectors:
        made = self._run(*settings, until="profile")
        print(f"{self._dataset.name}: {made.profile.summary}", file=sys.stderr, flush=True)
        encoder = Encoder(load_config().encode)
        texts = [encoder.fit([text])[0] for text in made.profile.texts]
        return encoder.encode(texts, self._folder / "parts", silent, "encode profiles")

    def _best_states(self) -> tuple[str, Callable[[], Vectors], Scope]:
        """Return the states of the layer and the pooling with the largest NDCG on validation, under the first kind."""
        readouts = [Readout(layer, pooling) for layer in self._options.layers for pooling in get_args(Pooling)]
        vectors = {
            f"{STATES}, {layer_name(each.layer)}, {each.pooling}": center_states(states)
            for each, states in zip(readouts, self._states(self._described, readouts), strict=True)
        }
        kind = self._options.kinds[0]
        judged = {
            name: self.given.judge(file_name(f"{kind} {name}"), lambda own=own: own, kind)  # type: ignore[misc]
            for name, own in vectors.items()
        }
        for name, values in judged.items():
            print(f"{name}: {short(mean_of(values, 'valid', METRICS[1]))} on validation", file=sys.stderr, flush=True)
        best = best_of(judged)
        return best, lambda: vectors[best], "train"

    def _states(self, described: Descriptions, readouts: Sequence[Readout]) -> Vectors:
        """Return float32 [readouts, U, hidden size] of one pass; zero for users without a history or states."""
        named = file_name(" ".join(f"{layer_name(each.layer)} {each.pooling}" for each in readouts))
        file = self._folder / f"states-{named}.npy"
        if file.exists():
            return np.array(read_array(file))
        config = load_config(None, ["profile.kind=hidden", *self._generated])
        profiler: Any = Engines(config, self._dataset).profiler(described)
        histories = newest_items(self._dataset.histories(), described, config.profile.max_items)
        users = [user for user, history in enumerate(histories) if history]
        states = profiler.model.hidden_states([profiler.request(histories[user]) for user in users], readouts)
        rows = np.zeros((len(readouts), self._dataset.n_users, states.shape[2]), np.float32)
        rows[:, users] = np.nan_to_num(states)
        make_folder(file.parent)
        write_array(file, rows)
        return rows


if __name__ == "__main__":
    sys.exit(main())
