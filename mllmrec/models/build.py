"""The one place where a kind becomes a network."""

from __future__ import annotations

import torch
from mllmrec_kernels import CSR
from torch import Tensor

from mllmrec.config import GraphConfig, ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.errors import ConfigError
from mllmrec.features.encode import Features, Vectors, mean_of_items
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.collaborative import BPRMF, VBPR, LightGCN
from mllmrec.models.freedom import FREEDOM
from mllmrec.models.mllmrec import MLLMRec, propagated_items
from mllmrec.models.network import Network, norms, squares

# FREEDOM's own item graph: the ten nearest, itself among them, directed, no threshold (its equations 1-3).
_FREEDOM_GRAPH = GraphConfig(mode="paper", semantic_neighbours=10, cooccurrence_neighbours=0, threshold=-1)


def build_network(
    model: ModelConfig, train: TrainConfig, features: Features, graph: ItemGraph, histories: Histories
) -> Network:
    """The untrained network of `model.kind`; initial weights come from torch's generator.

    Raises:
        ConfigError: the kind is solved in closed form, not trained.
    """
    user_items, items = histories.user_items(), torch.from_numpy(features.items)
    penalty = norms if model.penalty == "norms" else squares
    match model.kind:
        case "mllmrec":
            return _mllmrec(model, train, features, graph, histories)
        case "bpr":
            return BPRMF(*user_items.shape, train.dim, model.decay, penalty, bias=model.bias)
        case "vbpr":
            return VBPR(user_items.n_rows, items, train.dim, model.decay)
        case "lightgcn":
            refined = graph.normalised if model.refined else None
            return LightGCN(user_items, train.dim, model.gcn_layers, model.decay, refined, penalty)
        case "freedom":
            item_graph = graph.normalised if model.refined else _freedom_graph(features.items, histories)
            return FREEDOM(
                user_items, items, item_graph, train.dim, model.gcn_layers, model.decay, model.edge_keep,
                model.feature_loss,
            )  # fmt: skip
        case "ridge" | "blend" | "ease" | "ials" | "item-knn":
            raise ConfigError(f"model.kind={model.kind} is solved in closed form, not trained")


def _mllmrec(
    model: ModelConfig, train: TrainConfig, features: Features, graph: ItemGraph, histories: Histories
) -> MLLMRec:
    users: Vectors = features.users if model.reasoning else mean_of_items(features.items, histories)
    propagated: Tensor = torch.from_numpy(propagated_items(features.items, graph, train.layers))
    return MLLMRec(
        torch.from_numpy(users),
        propagated,
        train.dim,
        ids=model.ids,
        user_items=histories.user_items(),
        user_item_layers=model.user_item_layers,
    )


def _freedom_graph(items: Vectors, histories: Histories) -> CSR:
    return build_graph(items, histories, _FREEDOM_GRAPH).normalised
