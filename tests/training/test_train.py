"""Training: same seed, same bytes; killed and resumed, same bytes; test items never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR
from mllmrec_kernels.mlp import cpu
from numba import get_num_threads, set_num_threads
from safetensors.torch import save

from mllmrec.config import GraphConfig, TrainConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import ConfigError, LeakError, MismatchError, TrainingError
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models import registry
from mllmrec.models.base import FitContext, FitData
from mllmrec.models.fitting import fit_model
from mllmrec.models.network_model import NetworkModel
from mllmrec.models.registry import read_settings
from mllmrec.training.trainer import Trainer

QUICK = TrainConfig(epochs=6, dim=8, batch_size=64, checkpoint_seconds=0)


class StoppedError(Exception):
    """Raised by a progress hook, as a kill would end the process."""


@pytest.fixture
def inputs(dataset: Dataset, vectors: np.ndarray) -> tuple[Features, ItemGraph, Histories, CSR]:
    seen = dataset.histories()
    features = Features.of_items(vectors, seen)
    return features, build_graph(vectors, seen, GraphConfig(threshold=0.2)), seen, dataset.matrix("valid")


def weights(trained: NetworkModel) -> bytes:
    return save(trained.parameters)


def train_model(*inputs: object, **options: object) -> NetworkModel:
    """Train MLLMRec; the last of the inputs is a TrainConfig."""
    *artefacts, config = inputs
    fitted = fit_model(*artefacts, read_settings({"kind": "mllmrec"}), config, **options)
    assert isinstance(fitted, NetworkModel)
    return fitted


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
    from mllmrec.models.mllmrec import MLLMRecNetwork

    file, healthy, calls = tmp_path / "checkpoint.safetensors", MLLMRecNetwork.loss, []

    def sick(self: MLLMRecNetwork, *rows: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = healthy(self, *rows)
        return loss * float("nan") if file.exists() else loss

    monkeypatch.setattr(MLLMRecNetwork, "loss", sick)
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 2; the last checkpoint is kept"):
        train_model(*inputs, QUICK, seed=1, checkpoint=file)
    monkeypatch.setattr(MLLMRecNetwork, "loss", healthy)
    assert train_model(*inputs, QUICK, seed=1, checkpoint=file).curve[0].epoch == 1


def test_a_checkpoint_of_other_widths_is_refused(inputs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    stopped_checkpoint(inputs, file)
    with pytest.raises(MismatchError, match="made from other data or another config"):
        train_model(*inputs, QUICK.model_copy(update={"dim": 4}), seed=1, checkpoint=file)


def test_features_of_another_size_are_refused(inputs) -> None:
    features, graph, seen, valid = inputs
    short = Features(features.items[:-1], features.users, features.histories, features.cuts)
    with pytest.raises(MismatchError, match=f"the features have {len(short.items)} items"):
        train_model(short, graph, seen, valid, QUICK, seed=1)


@pytest.mark.parametrize("kind", ["mllmrec", "bpr"])
def test_an_epoch_holds_every_pair_once_and_negatives_are_of_others(inputs, kind: str) -> None:
    features, graph, seen, valid = inputs
    R = seen.user_items()
    model = registry.find(kind)(context=FitContext(QUICK, graph, seen))
    data = FitData(R, features.items, features.users, valid, seed=1)
    trainer = Trainer(lambda: model.build(data), model.training(data))
    users, positives, negatives = trainer.triples(np.random.default_rng(3)).cpu().numpy()
    order = np.lexsort((positives, users))
    assert users[order].tolist() == R.rows().tolist() and positives[order].tolist() == R.indices.tolist()
    assert not set(zip(users, negatives, strict=True)) & set(zip(users, positives, strict=True))
    runs = 1 + np.count_nonzero(np.diff(users))  # stretches of one user
    assert (runs == len(np.unique(users))) == trainer.network.shuffles_users == (kind == "mllmrec")
    assert not (np.diff(users) >= 0).all()


def test_users_without_training_items_and_items_that_nobody_trains_on_do_no_harm(dataset, vectors) -> None:
    train = dataset.histories()
    kept = (train.items != 3) & (np.repeat(np.arange(train.n_users), np.diff(train.indptr)) > 1)
    rows = np.repeat(np.arange(train.n_users), np.diff(train.indptr))[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=train.n_users))])
    seen = Histories(indptr, train.items[kept], None, train.n_items, "train")
    features = Features.of_items(vectors, seen)
    valid = CSR.from_pairs(np.array([0, 5, 9]), np.array([3, 3, 3]), (train.n_users, train.n_items))
    graph = build_graph(vectors, seen, GraphConfig(threshold=0.2))
    trained = train_model(features, graph, seen, valid, QUICK, seed=1)
    assert np.isfinite(trained.users).all() and np.isfinite(trained.items).all()
    judged = np.array([point.recall for point in trained.curve]) * 2  # users 5 and 9; user 0 has no training item
    np.testing.assert_allclose(judged, np.round(judged))


def test_nothing_to_train_on_is_refused(inputs) -> None:
    features, _, seen, valid = inputs
    nobody = Histories(np.zeros_like(seen.indptr), seen.items[:0], None, seen.n_items, "train")
    blank = Features(features.items, features.users, nobody.digest, features.cuts)
    alone = build_graph(features.items, nobody, GraphConfig(threshold=0.2))
    with pytest.raises(TrainingError, match="no training interactions"):
        train_model(blank, alone, nobody, valid, QUICK, seed=1)


def test_another_number_of_threads_changes_rounding_alone(inputs, monkeypatch) -> None:
    """Sums of products may be split at other places: 1e-4 of the largest value after six epochs.

    Up to what all items share: their projector's last bias falls out of every difference of two, so that its gradient
    is rounding and nothing else, and Adam moves it at the full rate all the same.
    """
    monkeypatch.setattr(cpu, "LEAST", 1)  # these few rows are split too
    whole = train_model(*inputs, QUICK, seed=1)
    torch_before, numba_before = torch.get_num_threads(), get_num_threads()
    torch.set_num_threads(1 if torch_before > 1 else 2)
    set_num_threads(1)
    try:
        other = train_model(*inputs, QUICK, seed=1)
    finally:
        torch.set_num_threads(torch_before)
        set_num_threads(numba_before)
    last = [point.loss for point in other.curve]
    np.testing.assert_allclose(last, [point.loss for point in whole.curve], rtol=1e-4)
    one, two = (trained.items - trained.items.mean(axis=0) for trained in (other, whole))
    np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(two).max())


def test_bfloat16_learns_as_float32_does(inputs) -> None:
    low = train_model(*inputs, QUICK.model_copy(update={"precision": "bfloat16"}), seed=1)
    whole = train_model(*inputs, QUICK, seed=1)
    assert low.users.dtype == np.float32
    np.testing.assert_allclose([p.loss for p in low.curve], [p.loss for p in whole.curve], rtol=0.01)


def test_compiling_where_there_is_no_compiler_says_so(inputs, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.raises(TrainingError, match=r"train\.compile=true does not work here \(InvalidCxx.* found\); install"):
        train_model(*inputs, QUICK.model_copy(update={"compile": True}), seed=1)


@pytest.mark.parametrize("kind", ["mllmrec", "ridge", "ensemble"])
def test_a_gpu_that_is_not_there_is_refused_in_a_line(inputs, kind: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    features, graph, seen, valid = inputs
    wanted = QUICK.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"train\.device=cuda wants a GPU, and torch sees none here"):
        fit_model(features, graph, seen, valid, read_settings({"kind": kind}), wanted, seed=1)


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


@pytest.mark.parametrize("kind", registry.kinds())
def test_no_kind_is_fitted_on_held_out_interactions_or_on_features_of_others(
    inputs, dataset: Dataset, kind: str
) -> None:
    features, graph, seen, valid = inputs
    model, everything = read_settings({"kind": kind}), dataset.histories("all")
    with pytest.raises(LeakError, match="a model may be built from training interactions only"):
        fit_model(features, graph, everything, valid, model, QUICK, seed=1)
    leaky = Features(features.items, features.users, everything.digest, features.cuts)
    with pytest.raises(MismatchError, match="made from other histories"):
        fit_model(leaky, graph, seen, valid, model, QUICK, seed=1)


@pytest.mark.parametrize("kind", registry.kinds())
def test_one_fit_builds_the_training_matrix_once(inputs, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of any kind; other matrices, such as the user-item graph, have other shapes."""
    if kind == "sansa":
        pytest.importorskip("sansa")
    features, graph, seen, valid = inputs
    fresh, built = replace(seen), []
    build = CSR.from_pairs

    def counted(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> CSR:
        built.append(shape)
        return build(rows, columns, shape)

    monkeypatch.setattr(CSR, "from_pairs", staticmethod(counted))
    config = QUICK.model_copy(update={"epochs": 1})
    fit_model(features, graph, fresh, valid, read_settings({"kind": kind}), config, seed=1)
    # Other matrices of the same shape: an epoch's edges of FREEDOM; of the ensemble the short lists of its weight
    # search, and the held-out rows of known and of new items; of the rivals' ensemble the short lists alone.
    others = {"freedom": 1, "ensemble": 4, "rival-ensemble": 1}.get(kind, 0)
    assert built.count((seen.n_users, seen.n_items)) == 1 + others
