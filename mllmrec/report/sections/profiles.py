"""The profiles of a run: measured, the worst by name, and sampled users in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllmrec.audit.profiles import ProfileFinding, reasoning_warning
from mllmrec.audit.quality import ProfileQuality, measure_quality
from mllmrec.errors import InputError
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.figures import Plot, histogram
from mllmrec.report.page import Measure
from mllmrec.report.sections.cards import Cards, UserCard
from mllmrec.runs import Run

_FAULTS = 3  # kinds of faults that a table names, commonest first


@dataclass(frozen=True, slots=True)
class ProfilesSection:
    """Profiles, measured and shown.

    Attributes:
        quality: the measures; None if there are no texts to measure.
        unmeasured: why not, one line.
        warning: one line if descriptions or profiles are not worth their time.
        measures: (measure, value, reading).
        plots: caption and plot.
        worst: users with the worst generic profiles.
        sampled: users drawn at random, worst profiles first.
    """

    quality: ProfileQuality | None
    unmeasured: str
    warning: str | None
    measures: Sequence[Measure]
    plots: Sequence[Plot]
    worst: Sequence[UserCard]
    sampled: Sequence[UserCard]


@dataclass(frozen=True, slots=True)
class ProfileSample:
    """Numbers of profiles and users that a section measures and shows.

    Attributes:
        measured: profiles that are measured; a seeded sample if there are more; None for the audit's own limit.
        worst: generic profiles that are shown in full.
        drawn: users drawn at random.
        seed: of every sample.
    """

    measured: int | None = 1000
    worst: int = 3
    drawn: int = 6
    seed: int = 0


def profiles_section(
    run: Run, cards: Cards, sample: ProfileSample, *, encoded: bool = True, progress: Progress = silent
) -> ProfilesSection:
    """Measure and sample the profiles of a run whose profile stage is done.

    Args:
        run: the run.
        cards: shows its users.
        sample: how many are measured and shown.
        encoded: whether its encode stage is done, too: without vectors there is nothing to measure with.
        progress: told by the measures.
    """
    if not encoded:
        return _unmeasured(cards, sample, "The profiles are measured once they are encoded.")
    try:
        quality = measure_profiles(run, sample, progress=progress)
    except InputError:
        return _unmeasured(cards, sample, "This run has no profile texts, so there is nothing to measure.")
    return show_profiles(run, cards, quality, sample)


def measure_profiles(run: Run, sample: ProfileSample, *, progress: Progress = silent) -> ProfileQuality:
    """Measure the profiles of a run.

    Args:
        run: a run whose encode stage is done.
        sample: how many are measured.
        progress: called after each block of users.

    Raises:
        InputError: it has no profile texts.
    """
    most = {} if sample.measured is None else {"most": sample.measured}
    return measure_quality(
        run.dataset, run.descriptions, run.profiles, run.features, newest=run.newest, seed=sample.seed,
        progress=progress, **most,
    )  # fmt: skip


def show_profiles(run: Run, cards: Cards, quality: ProfileQuality, sample: ProfileSample) -> ProfilesSection:
    """Return the section of measured profiles.

    Args:
        run: the run.
        cards: shows its users.
        quality: the measures.
        sample: how many are shown.
    """
    sampled, worst = sample_findings(quality, sample.drawn, seed=sample.seed), quality.words.generic[: sample.worst]
    return ProfilesSection(
        quality,
        "",
        reasoning_warning(quality.words, run.descriptions, run.profiles),
        profile_measures(quality),
        profile_plots(quality),
        cards.users([finding.id for finding in worst], worst),
        cards.users([finding.id for finding in sampled], sampled),
    )


def _unmeasured(cards: Cards, sample: ProfileSample, reason: str) -> ProfilesSection:
    return ProfilesSection(None, reason, None, (), (), (), cards.users(cards.spread_users(sample.drawn)))


def sample_findings(quality: ProfileQuality, count: int, *, seed: int = 0) -> list[ProfileFinding]:
    """Return measured profiles drawn at random, worst first.

    Args:
        quality: the measures.
        count: profiles to draw.
        seed: of the draw.
    """
    findings = quality.words.findings
    drawn = np.random.default_rng(seed).permutation(len(findings))[:count]
    return [findings[n] for n in np.sort(drawn)]


def profile_measures(quality: ProfileQuality) -> list[Measure]:
    """Return (measure, value, reading) of each measure."""
    words, n = quality.words, quality.compared
    nearest = f"{np.mean(quality.nearest):.2f}" if len(quality.nearest) else "none"
    chance = words.mean("chance")
    rows = [
        (
            "profiles measured",
            f"{words.measured:,} of {words.users:,}",
            f"{words.failed:,} failed, {words.empty:,} empty",
        ),
        (
            "flagged or suspect, and kept",
            f"{sum(count for _, count in words.faults):,}",
            "; ".join(f"{fault}: {count:,}" for fault, count in words.faults[:_FAULTS]) or "no check found a fault",
        ),
        ("generic profiles", f"{len(words.generic):,}", "hardly a word tells the user from others"),
        ("same text, other items", f"{words.twins:,}", "should be 0"),
        ("genericness", f"{words.mean('genericness'):.0%}", "words that a tenth of all profiles have too"),
        ("grounding", f"{words.mean('grounding'):.0%}", f"words found in the user's items; by chance {chance:.0%}"),
        (
            "distinct-1 / distinct-2",
            f"{quality.distinct_1:.2f} / {quality.distinct_2:.2f}",
            f"of {n:,} profiles; higher is more varied",
        ),
        ("self-BLEU", f"{quality.self_bleu:.2f}", f"of {n:,} profiles; lower is more varied"),
        ("nearest profile, cosine", nearest, "1: the same profile twice"),
    ]
    if quality.similarity:
        known = quality.similarity
        reading = f"random never-seen items {known.random:.3f}; AUC {known.auc:.2f}"
        rows.append(("held-out items, cosine", f"{known.heldout:.3f}", reading))
    rows.append(("profiles cut by the encoder", f"{quality.shortened:,}", "words beyond its limit are not read"))
    return rows


def profile_plots(quality: ProfileQuality) -> list[Plot]:
    """Draw the measures of the profiles."""
    findings = quality.words.findings
    share = list(100 * np.linspace(0, 1, 26))
    telling = [100 * len(f.telling) / max(f.words, 1) for f in findings]
    grounding = {
        "in the user's items": [100 * f.grounding for f in findings],
        "in random items": [100 * f.chance for f in findings],
    }
    return [
        (
            "Telling words of a profile: more frequent among the user's items, and only in profiles where they are.",
            histogram(
                {"": telling},
                xlabel="telling words, % of a profile's words",
                ylabel="profiles",
                name="telling words",
                bins=share,
            ),
        ),
        (
            "Grounding: content words that stand in the user's own items, and in as many drawn at random.",
            histogram(
                grounding,
                xlabel="words found, % of the content words",
                ylabel="profiles",
                name="grounding",
                bins=share,
            ),
        ),
        (
            "Distinctness: cosine with the nearest other profile's vector.",
            histogram(
                {"": quality.nearest},
                xlabel="cosine with the nearest other profile",
                ylabel="profiles",
                name="nearest profile",
            ),
        ),
    ]
