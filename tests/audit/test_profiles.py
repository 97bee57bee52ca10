"""Flags that are right on planted profiles, and measures that hold their definitions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.audit import ProfileWords, measure_quality, measure_words, profile_warning
from mllmrec.audit.quality import distinct, self_bleu
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.features.encode import Cuts, Features
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles

TOPICS, PER_TOPIC, USERS = 24, 10, 150
FLUFF = (
    "high-quality products",
    "good value for money",
    "reliable and durable items",
    "a modern and stylish look",
    "practical everyday solutions",
    "well-made things with attention to detail",
    "comfort and convenience",
    "trusted brands with excellent reviews",
    "versatile items for many occasions",
    "thoughtful design and great materials",
)
OPENINGS = ("This user likes", "The customer prefers", "Overall the shopper enjoys", "They appreciate")


def fluff(generator: np.random.Generator, count: int) -> str:
    chosen = generator.choice(len(FLUFF), count, replace=False)
    return f"{generator.choice(OPENINGS)} {', '.join(FLUFF[n] for n in chosen)}."


@pytest.fixture(scope="module")
def planted() -> Dataset:
    """A shop whose items have six words of their own topic of fifty, and praise like any other's."""
    generator = np.random.default_rng(0)
    # Made-up words, so that topics share none.
    syllables = ["ba", "du", "fe", "gi", "ko", "lu", "mi", "no", "pe", "ra", "su", "ti"]
    lexicon = [["".join(generator.choice(syllables, 4)) for _ in range(50)] for _ in range(TOPICS)]
    descriptions = [
        " ".join([*generator.choice(lexicon[topic], 6, replace=False), fluff(generator, 4)])
        for topic in range(TOPICS)
        for _ in range(PER_TOPIC)
    ]
    n = len(descriptions)
    items = pl.DataFrame(
        {
            "id": [f"i{i}" for i in range(n)],
            "title": [f"item {i}" for i in range(n)],
            "brand": [None] * n,
            "categories": [[] for _ in range(n)],
            "description": descriptions,
            "price": [None] * n,
            "images": [[] for _ in range(n)],
        },
        schema_overrides={"brand": pl.String, "categories": pl.List(pl.String), "images": pl.List(pl.String)},
    )
    rows = []
    for user in range(USERS):
        own = generator.choice(TOPICS, 2, replace=False)
        liked = np.concatenate([topic * PER_TOPIC + generator.choice(PER_TOPIC, 4, replace=False) for topic in own])
        rows += [(user, int(item), 2 if place == 7 else 0) for place, item in enumerate(liked)]
    interactions = pl.DataFrame(
        rows, schema={"user": pl.Int32, "item": pl.Int32, "split": pl.Int8}, orient="row"
    ).with_columns(rating=pl.lit(None, pl.Float64), timestamp=pl.lit(None, pl.Int64))
    users = pl.Series([f"u{u}" for u in range(USERS)])
    return Dataset("planted", users, items, interactions, {"files": {}}, Path())


def descriptions(dataset: Dataset) -> Descriptions:
    n = dataset.n_items
    return Descriptions(
        pl.DataFrame({"id": dataset.item_ids, "description": [""] * n, "status": ["ok"] * n, "reason": [""] * n})
    )


def profiles(dataset: Dataset, texts: list[str], status: list[str] | None = None) -> Profiles:
    table = pl.DataFrame(
        {"id": dataset.users, "profile": texts, "status": status or ["ok"] * len(texts), "reason": [""] * len(texts)}
    )
    return Profiles(table, dataset.train_digest, "train")


def specific(dataset: Dataset, user: int, generator: np.random.Generator) -> str:
    """Six words of the user's own items among as much praise as a generic profile has."""
    own = [dataset.items["description"][int(i)].split()[:6] for i in dataset.histories("train").of(user)]
    named = generator.choice(sorted({word for words in own for word in words}), 6, replace=False)
    return f"{fluff(generator, 3)} Above all {', '.join(named)}."


def plant(dataset: Dataset, generic: set[int]) -> ProfileWords:
    generator = np.random.default_rng(1)
    texts = [fluff(generator, 5) if u in generic else specific(dataset, u, generator) for u in range(USERS)]
    return measure_words(dataset, descriptions(dataset), profiles(dataset, texts), newest=100)


@pytest.mark.parametrize("every", [1, 2, 5, 50])
def test_the_generic_profiles_are_flagged_and_no_others(planted: Dataset, every: int) -> None:
    generic = set(range(0, USERS, every))
    made = plant(planted, generic)
    flagged = {finding.user for finding in made.generic}
    assert len(flagged ^ generic) <= 0.03 * USERS, (flagged - generic, generic - flagged)
    order = [finding.generic for finding in made.findings]
    assert order == sorted(order, reverse=True)  # worst first
    warning = profile_warning(made)
    assert (warning is not None) == (every <= 5)
    if warning:
        assert f"{len(flagged) / USERS:.0%} of the profiles are generic (worst: {made.findings[0].id}" in warning


def test_a_specific_profile_is_grounded_and_a_generic_one_is_common(planted: Dataset) -> None:
    made = plant(planted, set(range(0, USERS, 2)))
    generic, specific = ([f for f in made.findings if f.user % 2 == odd] for odd in (0, 1))
    assert all(len(f.telling) <= 2 and f.genericness > 0.9 for f in generic)
    assert all(len(f.telling) >= 4 and f.genericness < 0.9 for f in specific)
    assert np.mean([f.grounding - f.chance for f in specific]) > 0.2
    assert abs(np.mean([f.grounding - f.chance for f in generic])) < 0.1
    assert "and" in dict(made.common) and made.common[0][1] > 0.5


def test_other_peoples_profiles_are_as_bad_as_generic_ones(planted: Dataset) -> None:
    generator = np.random.default_rng(2)
    texts = [specific(planted, (user + 1) % USERS, generator) for user in range(USERS)]
    made = measure_words(planted, descriptions(planted), profiles(planted, texts), newest=100)
    assert len(made.generic) > 0.8 * USERS
    assert made.mean("grounding") < made.mean("chance") + 0.1


def test_one_text_for_all_is_called_so_and_failures_are_counted(planted: Dataset) -> None:
    same = measure_words(planted, descriptions(planted), profiles(planted, ["Likes good things."] * USERS), newest=9)
    assert same.twins == USERS and "the same text as another user's" in str(profile_warning(same))
    status = ["failed"] * 100 + ["empty"] * 50
    none = measure_words(planted, descriptions(planted), profiles(planted, [""] * USERS, status), newest=9)
    assert (none.failed, none.empty, none.measured) == (100, 50, 0)
    assert profile_warning(none) == "100% of the profiles failed"


def test_faults_of_answers_are_counted_by_kind(planted: Dataset) -> None:
    status = ["ok"] * (USERS - 6) + ["flagged"] * 3 + ["suspect", "unusable", "failed"]
    reasons = [
        "repeats itself",
        "repeats itself (attempt 3)",
        "words that no item has: tbo, tux",
        "refusal",
        "loop",
        "x",
    ]
    made = profiles(planted, ["Likes good things."] * (USERS - 2) + ["", ""], status)
    made = replace(made, table=made.table.with_columns(reason=pl.Series([""] * (USERS - 6) + reasons)))
    measured = measure_words(planted, descriptions(planted), made, newest=9)
    assert measured.faults == (("repeats itself", 2), ("words that no item has", 1), ("refusal", 1))
    assert (measured.failed, measured.measured) == (2, USERS - 2)


def test_chance_is_the_share_that_random_items_would_give(planted: Dataset) -> None:
    """Against drawing: the profile is one word, in a tenth of the items; seven are drawn."""
    items = planted.items.with_columns(
        description=pl.Series(["zebra" if i % 10 == 0 else "other" for i in range(planted.n_items)])
    )
    dataset = Dataset("z", planted.users, items, planted.interactions, {"files": {}}, Path())
    texts = [f"zebra {'likes' if user else ''}" for user in range(USERS)]
    made = measure_words(dataset, descriptions(dataset), profiles(dataset, texts[:1] + [""] * (USERS - 1)), newest=100)
    generator = np.random.default_rng(0)
    drawn = [(generator.choice(planted.n_items, 7, replace=False) % 10 == 0).any() for _ in range(4000)]
    assert made.findings[0].chance == pytest.approx(np.mean(drawn), abs=4 * 0.5 / math.sqrt(4000))


def test_held_out_items_are_set_against_never_seen_ones(planted: Dataset) -> None:
    generator = np.random.default_rng(1)
    texts = [specific(planted, user, generator) for user in range(USERS)]
    topic = np.arange(planted.n_items) // PER_TOPIC
    items = np.eye(TOPICS, dtype=np.float32)[topic]
    users = np.zeros((USERS, TOPICS), np.float32)
    histories = planted.histories("train")
    for user in range(USERS):
        np.add.at(users[user], topic[histories.of(user)], 1)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    features = Features(items, users, histories.digest, Cuts(0, 0, 3, 9))
    made = measure_quality(planted, descriptions(planted), profiles(planted, texts), features, newest=100)
    assert made.similarity and made.similarity.auc > 0.9 > 0.3 > made.similarity.random
    assert made.shortened == 3 and made.compared == USERS and 0 < made.self_bleu < 0.9
    assert len(made.nearest) == USERS
    again = measure_quality(planted, descriptions(planted), profiles(planted, texts), features, newest=100)
    assert again.as_dict() == made.as_dict()
    with pytest.raises(InputError, match="no profile texts"):
        measure_quality(planted, descriptions(planted), profiles(planted, [""] * USERS), features, newest=100)


def test_distinct_counts_different_ngrams() -> None:
    texts = [["a", "b", "a"], ["a", "b"]]
    assert distinct(texts, 1) == 2 / 5 and distinct(texts, 2) == 2 / 3 and distinct([[]], 1) == 0


def test_self_bleu_is_the_mean_bleu_against_all_others() -> None:
    same = ["one", "two", "three", "four", "five"]
    assert self_bleu([same] * 3) == pytest.approx(1)
    assert math.isnan(self_bleu([same]))
    # By hand: precisions 3/4, 2/3, 1/2, and half a match of 1 for 4-grams; lengths are equal.
    near = [["a", "b", "c", "d"], ["a", "b", "c", "x"]]
    assert self_bleu(near) == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    assert self_bleu([["a", "b", "c", "d"], ["w", "x", "y", "z"]]) < 0.25
    # A repeated word is matched as often as one of the others has it, no more: 1 of 2.
    short = [["a", "a"], ["a", "b"]]
    assert self_bleu(short) == pytest.approx(math.sqrt(1 / 2 * 0.5 / 1))
