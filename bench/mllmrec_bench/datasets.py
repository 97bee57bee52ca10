"""The data that ops are measured on: generated at any size, a dataset, or a run; and the real vectors behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from mllmrec_kernels import CSR, normalize
from numpy.typing import NDArray

from mllmrec.config import EncodeConfig, GraphConfig
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.synthetic_shop import catalogue_texts
from mllmrec.errors import ConfigError, InputError
from mllmrec.features.encode import Vectors, normalize_rows, parts_of
from mllmrec.features.encoder import Encoder
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import user_cache_folder
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import build_graph
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.reason.describe import catalogue
from mllmrec.runs import Run
from mllmrec_bench import embeddings, interactions

DEMO_ITEMS, _BATCH = 2_000, 100_000  # items of the demo; samples of sample_negatives


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of generated data.

    Attributes:
        items, users, interactions: of the shop.
        edges: of the item graph, a row.
        dim: width of the trained vectors.
    """

    items: int = 10_000
    users: int = 20_000
    interactions: int = 200_000
    edges: int = 20
    dim: int = 64


class BenchData(Protocol):
    """Input for every op; each part is made when it is first used."""

    @property
    def name(self) -> str:
        """Return its name, for a case."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Return item vectors, float32 [I, d], unit rows."""
        ...

    @property
    def user_items(self) -> CSR:
        """Return training interactions, [U, I]."""
        ...

    @property
    def graph(self) -> CSR:
        """Return an item graph, [I, I], not normalized."""
        ...

    @property
    def towers(self) -> tuple[Vectors, Vectors]:
        """Return user and item vectors as trained, float32 [U, d'] and [I, d']."""
        ...

    @property
    def split(self) -> tuple[CSR, CSR]:
        """Return interactions that are left out of a ranking, and those that are ranked, both [U, I]."""
        ...


class GeneratedData:
    """Generated data; vectors are like the rows of a source."""

    def __init__(self, sizes: Sizes, like: Source, seed: int = 0) -> None:
        self._sizes, self._like, self._seed = sizes, like, seed
        self.name = generated_name(like.name, seed)

    @cached_property
    def vectors(self) -> Vectors:
        """See BenchData."""
        return embeddings.enlarge(self._like.rows(), self._sizes.items, seed=self._seed)

    @cached_property
    def user_items(self) -> CSR:
        """See BenchData."""
        size = self._sizes
        return interactions.interactions(size.users, size.items, size.interactions, seed=self._seed)

    @cached_property
    def graph(self) -> CSR:
        """See BenchData."""
        return interactions.graph(self._sizes.items, self._sizes.edges, seed=self._seed)

    @cached_property
    def towers(self) -> tuple[Vectors, Vectors]:
        """See BenchData."""
        return interactions.towers(self._sizes.users, self._sizes.items, self._sizes.dim, seed=self._seed)

    @cached_property
    def split(self) -> tuple[CSR, CSR]:
        """See BenchData."""
        return interactions.held_out(self.user_items, seed=self._seed)


def generated_name(source_name: str, seed: int) -> str:
    """Return the name of data generated from a source."""
    return f"generated like {source_name}" + (f" seed={seed}" if seed else "")


class OwnData:
    """A user's dataset, or a run over it; without a run, vectors and graph are made from the dataset."""

    def __init__(self, dataset: Dataset, run: Run | None = None, progress: Progress = silent) -> None:
        self._dataset, self._run, self._progress = dataset, run, progress
        self.name = f"{dataset.name} (a run)" if run else dataset.name

    @staticmethod
    def of_run(folder: Path) -> OwnData:
        """Return the data and the artefacts of a run."""
        view = Run(folder)
        return OwnData(view.dataset, view)

    @cached_property
    def vectors(self) -> Vectors:
        """See BenchData."""
        if self._run:
            return self._run.features.items
        return dataset_vectors(self._dataset, self._progress)

    @cached_property
    def user_items(self) -> CSR:
        """See BenchData."""
        return self._dataset.train

    @cached_property
    def graph(self) -> CSR:
        """See BenchData."""
        if self._run:
            return self._run.graph.adjacency
        return build_graph(self.vectors, self._dataset.histories("train"), GraphConfig()).adjacency

    @cached_property
    def towers(self) -> tuple[Vectors, Vectors]:
        """See BenchData."""
        if self._run:
            model = self._run.fitted
            if not isinstance(model, EmbeddingModel):
                raise InputError(f"{self._run.folder} holds a model without vectors; name a run of a kind with vectors")
            return model.users, model.items
        return interactions.towers(*self.user_items.shape, Sizes().dim)

    @cached_property
    def split(self) -> tuple[CSR, CSR]:
        """See BenchData."""
        return self._dataset.train, self._dataset.matrix("test")


def normalized(data: BenchData) -> CSR:
    """Return the data's graph, normalized."""
    return normalize(data.graph)


def sampled_users(data: BenchData) -> NDArray[np.int64]:
    """Return the users of a random batch of interactions, int64 [B]; none who has seen every seen item.

    Raises:
        InputError: there is no such user.
    """
    user_items = data.user_items
    seen = len(np.unique(user_items.indices))
    rows = user_items.rows()
    usable = rows[np.diff(user_items.indptr)[rows] < seen]
    if not len(usable):
        raise InputError("every user has seen every item; there are no negatives to sample")
    return np.random.default_rng(0).choice(usable, min(_BATCH, len(usable)))


@dataclass(frozen=True, slots=True)
class Source:
    """Real rows by name; `rows` reads or makes them."""

    name: str
    rows: Callable[[], Vectors]


def file_source(path: Path) -> Source:
    """Return the rows of a .npy file."""
    return Source(path.stem, lambda: file_vectors(path))


def demo_source(progress: Progress = silent) -> Source:
    """Return the text of the demo shop."""
    return Source("demo", lambda: demo_vectors(progress))


def file_vectors(path: Path) -> Vectors:
    """Read unit rows from a .npy file, float32 [n, d]; zero rows are left out.

    Raises:
        InputError: no such file, not a matrix of numbers, or not finite.
    """
    array = storage.read_array(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} must hold floating [n, d]; got {array.dtype} of shape {array.shape}")
    rows = np.array(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise InputError(f"{path} holds NaN or infinity; mend or drop those rows")
    return _unit(rows)


def demo_vectors(progress: Progress = silent, *, items: int = DEMO_ITEMS) -> Vectors:
    """Return all-MiniLM-L6-v2 over the text of the generated shop, float32 [items, 384]; cached.

    Raises:
        EngineError: the encoder is not there; the text names the pip command.
    """
    return _encoded(catalogue_texts(items), progress)


def dataset_vectors(dataset: Dataset, progress: Progress = silent) -> Vectors:
    """Return the item features that came with the dataset, or its catalogue's text encoded, float32 [I, d].

    Rows of items without any text are zero.
    """
    if dataset.features:
        name = sorted(dataset.features)[0]
        return normalize_rows(np.array(storage.read_array(dataset.features[name]), dtype=np.float32))
    return _encoded([parts_of(item, "") for item in catalogue(dataset, images=False)], progress)


def _encoded(documents: Sequence[Sequence[str]], progress: Progress) -> Vectors:
    config = EncodeConfig()
    folder = _cache()
    name = digests.hash_value([Encoder.identity(config), [list(parts) for parts in documents]])
    kept = folder / f"{name}.npy"
    if kept.exists():
        return np.array(storage.read_array(kept))
    encoder = Encoder(config)
    texts = [encoder.fit(parts)[0] for parts in documents]
    vectors = encoder.encode(texts, folder / "parts", progress, "encode the source")
    storage.write_array(kept, vectors)
    return vectors


def _cache() -> Path:
    return storage.make_folder(user_cache_folder() / "measure")


def _unit(rows: Vectors) -> Vectors:
    kept = np.linalg.norm(rows, axis=1) > 0
    return normalize_rows(np.ascontiguousarray(rows[kept]))


def choose_data(
    sizes: Sizes,
    *,
    dataset: Path | None = None,
    run: Path | None = None,
    features: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> BenchData:
    """Return a dataset or run, or generated data if neither is named.

    Args:
        sizes: of generated data.
        dataset: a dataset folder.
        run: a run folder.
        features: a .npy file of vectors that generated ones are like; by default the demo shop's text.
        seed: of generated data.
        progress: told while texts are encoded.

    Raises:
        ConfigError: more than one of them is named.
    """
    if sum(place is not None for place in (dataset, run, features)) > 1:
        raise ConfigError("--dataset, --run and --features exclude each other; give one of them")
    if run:
        return OwnData.of_run(run)
    if dataset:
        return OwnData(load(dataset), progress=progress)
    return GeneratedData(sizes, find_source(features, progress), seed)


def find_source(features: Path | None, progress: Progress = silent) -> Source:
    """Return the rows of a .npy file, or the text of the demo shop if none is named."""
    return file_source(features) if features else demo_source(progress)
