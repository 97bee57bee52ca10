"""What the reasoning stages wrote: measured, the worst by name, and sampled users in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllmrec.audit.profiles import profile_warning
from mllmrec.audit.quality import ProfileQuality, measure_quality
from mllmrec.errors import InputError
from mllmrec.report.people import People, Person
from mllmrec.report.profile_page import profile_plots, sample_findings
from mllmrec.views import RunView

_MEASURED = 1000  # profiles; a seeded sample where there are more
_SAMPLED, _WORST = 6, 3


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The section.

    Attributes:
        quality: what is measured of the profiles; None where there are no texts to measure.
        unmeasured: why not, one line.
        warning: one line where the profiles are not worth their time.
        plots: caption and plot.
        worst: users with the worst generic profiles.
        sampled: users drawn at random, worst profiles first.
    """

    quality: ProfileQuality | None
    unmeasured: str
    warning: str | None
    plots: Sequence[tuple[str, object]]
    worst: Sequence[Person]
    sampled: Sequence[Person]


def reasoning(view: RunView, people: People, *, encoded: bool, seed: int) -> Reasoning:
    """Measure and sample a run's profiles.

    Args:
        view: a run whose profile stage is done.
        people: shows its users.
        encoded: whether its encode stage is done, too: without vectors there is nothing to measure with.
        seed: of every sample.
    """
    if not encoded:
        return Reasoning(None, "The profiles are measured once they are encoded.", None, (), (), _unmeasured(people))
    try:
        quality = measure_quality(
            view.dataset, view.descriptions, view.profiles, view.features, newest=view.newest, most=_MEASURED, seed=seed
        )
    except InputError:
        said = "This run has no profile texts, so there is nothing to measure."
        return Reasoning(None, said, None, (), (), _unmeasured(people))
    sampled, worst = sample_findings(quality, _SAMPLED, seed=seed), quality.words.generic[:_WORST]
    return Reasoning(
        quality,
        "",
        profile_warning(quality.words),
        profile_plots(quality),
        people.show([finding.user for finding in worst], worst),
        people.show([finding.user for finding in sampled], sampled),
    )


def _unmeasured(people: People) -> list[Person]:
    return people.show(people.spread(_SAMPLED))
