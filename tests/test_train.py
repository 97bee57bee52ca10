"""Training: same seed, same bytes; killed and resumed, same bytes; test items never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR
from safetensors.torch import save

from mllmrec.config import GraphConfig, TrainConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.encode import Cuts, Features, mean_of_items
from mllmrec.errors import LeakError, MismatchError, TrainingError
from mllmrec.graph import ItemGraph, build_graph
from mllmrec.train import train_model
from mllmrec.trained import Trained

QUICK = TrainConfig(epochs=6, dim=8, batch_size=64, checkpoint_seconds=0)


class StoppedError(Exception):
    """Raised by a progress hook, as a kill would end the process."""


@pytest.fixture
def inputs(dataset: Dataset, vectors: np.ndarray) -> tuple[Features, ItemGraph, Histories, CSR]:
    seen = dataset.histories()
    features = Features(vectors, mean_of_items(vectors, seen), seen.digest, Cuts(0, 0, 0, 0))
    return features, build_graph(vectors, seen, GraphConfig(threshold=0.2)), seen, dataset.matrix("valid")


def weights(trained: Trained) -> bytes:
    return save(trained.weights)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(inputs) -> None:
    first, second = (train_model(*inputs, QUICK, seed=1) for _ in range(2))
    assert weights(first) == weights(second)
    assert first.users.tobytes() == second.users.tobytes()
    assert weights(train_model(*inputs, QUICK, seed=2)) != weights(first)


@pytest.mark.parametrize("killed_after", [1, 4])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(inputs, tmp_path: Path, killed_after: int) -> None:
    def kill(label: str, done: int, total: int | None) -> None:
        if done > killed_after:
            raise StoppedError

    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(StoppedError):
        train_model(*inputs, QUICK, seed=1, checkpoint=file, progress=kill)
    assert file.exists()
    resumed = train_model(*inputs, QUICK, seed=1, checkpoint=file)
    whole = train_model(*inputs, QUICK, seed=1)
    assert weights(resumed) == weights(whole)
    assert resumed.curve == whole.curve
    assert not file.exists()


def stopped_checkpoint(inputs, file: Path) -> None:
    def kill(label: str, done: int, total: int | None) -> None:
        if done > 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_model(*inputs, QUICK, seed=1, checkpoint=file, progress=kill)


def test_a_checkpoint_of_other_data_is_refused(inputs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    stopped_checkpoint(inputs, file)
    with pytest.raises(MismatchError, match="made from other data or another config"):
        train_model(*inputs, QUICK, seed=2, checkpoint=file)


def test_a_damaged_checkpoint_is_refused(inputs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    stopped_checkpoint(inputs, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(MismatchError, match="is damaged"):
        train_model(*inputs, QUICK, seed=1, checkpoint=file)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(inputs, tmp_path: Path, monkeypatch) -> None:
    import torch

    from mllmrec.models.mllmrec import MLLMRec

    file, healthy, calls = tmp_path / "checkpoint.safetensors", MLLMRec.loss, []

    def sick(self: MLLMRec, *rows: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = healthy(self, *rows)
        return loss * float("nan") if file.exists() else loss

    monkeypatch.setattr(MLLMRec, "loss", sick)
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 2; the last checkpoint is kept"):
        train_model(*inputs, QUICK, seed=1, checkpoint=file)
    monkeypatch.setattr(MLLMRec, "loss", healthy)
    assert train_model(*inputs, QUICK, seed=1, checkpoint=file).curve[0].epoch == 1


def test_an_empty_validation_split_is_refused(inputs) -> None:
    features, graph, seen, valid = inputs
    nothing = CSR.from_pairs(np.array([], np.int64), np.array([], np.int64), valid.shape)
    with pytest.raises(TrainingError, match="validation split is empty"):
        train_model(features, graph, seen, nothing, QUICK, seed=1)


def test_training_stops_at_the_first_evaluation_beyond_the_patience(inputs) -> None:
    trained = train_model(*inputs, QUICK.model_copy(update={"epochs": 500, "patience": 3}), seed=1)
    assert len(trained.curve) - trained.best_epoch == 4
    assert trained.curve[trained.best_epoch - 1].recall == max(epoch.recall for epoch in trained.curve)


def test_features_of_another_split_are_refused(inputs, dataset: Dataset) -> None:
    features, graph, _, valid = inputs
    with pytest.raises(LeakError):
        train_model(features, graph, dataset.histories("all"), valid, QUICK, seed=1)
    leaky = Features(features.items, features.users, dataset.histories("all").digest, features.cuts)
    with pytest.raises(MismatchError, match="made from other histories"):
        train_model(leaky, graph, dataset.histories(), valid, QUICK, seed=1)
