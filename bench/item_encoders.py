"""Measure which encoder of items' texts serves best: a sentence encoder, or layers of a language model.

    python -m bench.item_encoders demo/dataset --model smollm2-135m

A language model's vector of an item is the mean of a layer's states over the item's first tokens. All vectors are
centered and half-whitened but the first row's, which are the sentence encoder's own. Users are the means of their
items.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.engine_config import TransformersConfig
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.groups import ALL, Judged, SplitTask
from mllmrec.evaluation.metrics import mean_interval, short
from mllmrec.features.encode import Cuts, Features, Vectors, mean_of_items, parts_of
from mllmrec.graph.item_graph import build_graph
from mllmrec.models import registry
from mllmrec.models.content import half_whiten
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run
from mllmrec.reason.describe import catalogue
from mllmrec.reason.engines.local_model import TransformersModel

CUTOFF, METRIC = 20, "ndcg@20"
BATCH = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("--model", default="smollm2-135m", help="as profile.model takes it")
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 20, 30], help="0: the embeddings")
    parser.add_argument("--tokens", type=int, default=48, help="of an item's text that the model reads")
    parser.add_argument("--kinds", nargs="+", default=["content", default_kind()], choices=registry.kinds())
    options = parser.parse_args(arguments)
    try:
        data = load(options.dataset)
        own, descriptions = sentence_vectors(data)
        sources = {"sentence encoder": own, "sentence encoder, half-whitened": half_whiten(own)}
        for layer, states in zip(options.layers, layer_states(data, descriptions, options), strict=True):
            sources[f"{options.model}, layer {layer}"] = half_whiten(states)
        print("| model | items' vectors | N@20 | over the sentence encoder's own |\n|---|---|---|---|", flush=True)
        for kind in options.kinds:
            judged = {name: judge(data, items, kind) for name, items in sources.items()}
            first = judged["sentence encoder"].values[METRIC]
            for name, found in judged.items():
                gain = mean_interval(found.values[METRIC] - first)
                ends = ", ".join(short(end, signed=True) for end in (gain.low, gain.high))
                change = "" if found is judged["sentence encoder"] else f"{short(gain.value, signed=True)} [{ends}]"
                print(f"| {registry.title(kind)} | {name} | {short(float(found.values[METRIC].mean()))} | {change} |")
    except MllmrecError as error:
        print(f"item encoders: {error}", file=sys.stderr)
        return 1
    return 0


def sentence_vectors(data: Dataset) -> tuple[Vectors, list[str]]:
    """Return the vectors of the encoder that a run takes, and the descriptions behind them."""
    with tempfile.TemporaryDirectory() as folder:
        made = run(data, Path(folder) / "run", load_config(None, ["profile.kind=mean"]), until="encode")
        return made.encode.items, made.describe.texts


def layer_states(data: Dataset, descriptions: Sequence[str], options: argparse.Namespace) -> list[Vectors]:
    """Return the mean states of each layer over each item's first tokens, float32 [I, hidden size] each."""
    loaded = TransformersModel(options.model, TransformersConfig(device="cpu")).loaded
    tokenizer = loaded.processor.tokenizer
    texts = [" ".join(parts_of(item, text)) for item, text in zip(catalogue(data), descriptions, strict=True)]
    rows: list[list[NDArray[np.float32]]] = [[] for _ in options.layers]
    for start in range(0, len(texts), BATCH):
        inputs = tokenizer(
            texts[start : start + BATCH],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=options.tokens,
        )
        with torch.inference_mode():
            states = loaded.model.model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
        mask = inputs["attention_mask"].unsqueeze(-1)
        for place, layer in enumerate(options.layers):
            pooled = (states[layer].float() * mask).sum(1) / mask.sum(1)
            rows[place].append(pooled.numpy())
    return [np.concatenate(parts).astype(np.float32) for parts in rows]


def judge(data: Dataset, items: Vectors, kind: str) -> Judged:
    """Return the test metrics of a model over these vectors, for each user."""
    config = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
    histories = data.histories("train")
    features = Features(items, mean_of_items(items, histories), histories.digest, Cuts(0, 0, 0, 0))
    graph = build_graph(items, histories, config.graph)
    model = fit_model(features, graph, histories, data.matrix("valid"), config.model, config.train, seed=config.seed)
    _, found = SplitTask.of(data, "test", config.evaluate).judge(model, (CUTOFF,))
    return found[ALL]


if __name__ == "__main__":
    sys.exit(main())
