"""Measure which encoder of items' texts serves best: a sentence encoder, or layers of a language model.

    python -m bench.item_encoders demo/dataset --model smollm2-135m --write docs/results.md

A language model's vector of an item is the mean of a layer's states over the item's first tokens. The layer is chosen
on validation, for each model by itself. All vectors are centered and half-whitened but the first row's, which are the
sentence encoder's own. Users are the means of their items.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.given_vectors import METRICS, GivenItems, best_of, gain, mean_of, table
from bench.pictures import replaced
from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import EngineError, MllmrecError
from mllmrec.evaluation.metrics import short
from mllmrec.features.encode import Vectors, mean_of_items, parts_of
from mllmrec.foundation.storage import make_folder, read_array, write_array, write_text
from mllmrec.models import registry
from mllmrec.models.content import half_whiten
from mllmrec.pipeline import run
from mllmrec.reason.describe import catalogue
from mllmrec.reason.engines.local_model import TransformersModel

METRIC = METRICS[1]
SHARD = 256  # texts whose states are kept together
BEGIN, END = "<!-- item encoders: bench.item_encoders writes this table -->", "<!-- end of item encoders -->"
OWN, WHITENED = "sentence encoder", "sentence encoder, half-whitened"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print a table and write it where --write names a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+", help="prepared datasets")
    parser.add_argument("--model", default="smollm2-135m", help="as profile.model takes it")
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 20, 30], help="0: the embeddings, -1: the last")
    parser.add_argument("--tokens", type=int, default=48, help="of an item's text that the model reads")
    parser.add_argument("--kinds", nargs="+", default=["content", default_kind()], choices=registry.kinds())
    parser.add_argument("--out", type=Path, default=Path("item-encoders"), help="folder of vectors and judged models")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args(arguments)
    try:
        rows = [row for folder in options.datasets for row in measure(load(folder), options)]
        found = table(("data", "model", "items' vectors", "N@20 on validation", "N@20", "gain over the first"), rows)
        print(found)
        if options.write:
            write_text(options.write, replaced(options.write.read_text(encoding="utf-8"), found, BEGIN, END))
    except MllmrecError as error:
        print(f"item encoders: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: Dataset, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return the rows of one dataset: for each kind of model its encoders, the best layer in bold."""
    folder = options.out / dataset.name
    own, descriptions = sentence_vectors(dataset, folder)
    states = layer_states(dataset, descriptions, folder, options)
    layers = {f"{options.model}, layer {layer}": half_whiten(each) for layer, each in states.items()}
    sources = {OWN: own, WHITENED: half_whiten(own), **layers}
    given = {
        name: GivenItems(dataset, items, folder / name.replace(" ", "-").replace(",", ""))
        for name, items in sources.items()
    }
    rows = []
    for kind in options.kinds:
        judged = {
            name: each.judge(kind, partial(mean_of_items, each.items, each.histories), kind)
            for name, each in given.items()
        }
        best = best_of({name: judged[name] for name in layers})
        for name, values in judged.items():
            means = [short(mean_of(values, split, METRIC)) for split in ("valid", "test")]  # type: ignore[arg-type]
            change = "" if name == OWN else gain(values, judged[OWN], METRIC)
            rows.append((dataset.name, registry.title(kind), f"**{name}**" if name == best else name, *means, change))
    return rows


def sentence_vectors(dataset: Dataset, folder: Path) -> tuple[Vectors, list[str]]:
    """Return the vectors of the encoder that a run takes, and the descriptions behind them."""
    made = run(dataset, folder / "run", load_config(None, ["profile.kind=mean"]), until="encode")
    return made.encode.items, made.describe.texts


def layer_states(
    dataset: Dataset, descriptions: Sequence[str], folder: Path, options: argparse.Namespace
) -> dict[int, Vectors]:
    """Return each layer's mean states over each item's first tokens, float32 [I, hidden size].

    The text stands after the beginning token, which every text shares and no mean holds.

    Args:
        dataset: whose items are read.
        descriptions: of their pictures.
        folder: keeps the states.
        options: model, layers and tokens.
    """
    texts = [" ".join(parts_of(item, text)) for item, text in zip(catalogue(dataset), descriptions, strict=True)]
    named = "-".join(map(str, (options.tokens, *options.layers)))
    model: TransformersModel | None = None
    shards = []
    make_folder(folder)
    for start in range(0, len(texts), SHARD):
        file = folder / f"states-{named}-{start}.npy"
        if not file.exists():
            model = model or TransformersModel(options.model, TransformersConfig(device="cpu"))
            write_array(file, read_layers(model, texts[start : start + SHARD], options))
        shards.append(np.array(read_array(file)))
    return dict(zip(options.layers, np.concatenate(shards, axis=1), strict=True))


def read_layers(model: TransformersModel, texts: Sequence[str], options: argparse.Namespace) -> Vectors:
    """Return the mean states of each text, float32 [layers, texts, hidden size]; one pass serves all layers.

    Args:
        model: a plain llama.
        texts: in any order.
        options: layers and tokens.

    Raises:
        EngineError: our own forward pass does not run the model.
    """
    tokenizer, network = model.loaded.processor.tokenizer, model.network
    if network is None:
        raise EngineError(f"{options.model} is no plain llama, and its states are read by our own pass alone")
    row = network.allocate(1, 1 + options.tokens)
    pooled = np.zeros((len(options.layers), len(texts), model.settings["hidden_size"]), np.float32)
    with torch.inference_mode():
        network.read(torch.tensor([tokenizer.bos_token_id]), row, 0, 0)
        for n, text in enumerate(texts):
            tokens = tokenizer(text, add_special_tokens=False, truncation=True, max_length=options.tokens)["input_ids"]
            if tokens:
                states = network.read_states(torch.tensor(tokens), row, 1, options.layers)
                pooled[:, n] = torch.stack([each.float().mean(0) for each in states]).numpy()
    return pooled


if __name__ == "__main__":
    sys.exit(main())
