"""The page of `mllmrec inspect profiles`: what is measured, the worst profiles, and users drawn at random."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mllmrec import __version__
from mllmrec.audit.profiles import ProfileFinding, reasoning_warning
from mllmrec.audit.quality import ProfileQuality
from mllmrec.report.figures import histogram
from mllmrec.report.page import render, thumbnail
from mllmrec.views import RunView

SHOWN_ITEMS = 8  # of a user's history, the newest
WORST = 20  # generic profiles that are shown in full


@dataclass(frozen=True, slots=True)
class ItemShown:
    """One item of a history: what the catalogue and the describer say, and its picture as a data URL."""

    id: str
    title: str
    text: str
    said: str
    picture: str | None


@dataclass(frozen=True, slots=True)
class UserShown:
    """One user beside what their profile was made from.

    Attributes:
        id: the shop's id.
        profile: its text.
        finding: what is measured of it.
        items: the newest training items, newest first.
        more: training items beyond those.
    """

    id: str
    profile: str
    finding: ProfileFinding
    items: tuple[ItemShown, ...]
    more: int

    @property
    def tags(self) -> list[str]:
        """What is wrong with the profile."""
        wrong = (("generic", self.finding.generic), ("same text as another user's", self.finding.twin))
        return [tag for tag, holds in wrong if holds]


def sample_findings(quality: ProfileQuality, count: int, *, seed: int = 0) -> list[ProfileFinding]:
    """So many measured profiles, drawn at random, worst first."""
    findings = quality.words.findings
    drawn = np.random.default_rng(seed).permutation(len(findings))[:count]
    return [findings[n] for n in np.sort(drawn)]


def show_users(view: RunView, findings: Iterable[ProfileFinding], *, pictures: bool) -> list[UserShown]:
    """The findings' users with their items; `pictures` opens and embeds the pictures."""
    histories = view.dataset.histories("train")
    shown = []
    for finding in findings:
        items = histories.of(finding.user)
        newest = items[::-1][:SHOWN_ITEMS]
        shown.append(
            UserShown(
                id=finding.id,
                profile=view.profiles.texts[finding.user],
                finding=finding,
                items=tuple(show_item(view, int(item), pictures=pictures) for item in newest),
                more=len(items) - len(newest),
            )
        )
    return shown


def show_item(view: RunView, item: int, *, pictures: bool) -> ItemShown:
    """One item by its index."""
    row = view.dataset.items.row(item, named=True)
    images = [view.dataset.folder / name for name in row["images"] or ()] if pictures else []
    return ItemShown(
        id=row["id"],
        title=row["title"] or "",
        text=" | ".join(
            part for part in (row["brand"], " > ".join(row["categories"] or ()), row["description"]) if part
        ),
        said=view.descriptions.table["description"][item],
        picture=next((url for path in images if (url := thumbnail(path))), None),
    )


def profile_page(view: RunView, quality: ProfileQuality, sampled: Iterable[ProfileFinding]) -> str:
    """The whole page as HTML."""
    told = quality.words
    return render(
        "profiles.html.j2",
        heading="Profiles",
        dataset=view.dataset.name,
        run=view.folder.name,
        version=__version__,
        leaky=view.leaky,
        quality=quality,
        warning=reasoning_warning(told, view.descriptions, view.profiles),
        plots=profile_plots(quality),
        worst=show_users(view, told.generic[:WORST], pictures=True),
        sampled=show_users(view, sampled, pictures=True),
    )


def profile_plots(quality: ProfileQuality) -> list[tuple[str, object]]:
    """Captions and plots of what is measured over the profiles."""
    findings = quality.words.findings
    share = np.linspace(0, 1, 26)
    telling = [100 * len(f.telling) / max(f.words, 1) for f in findings]
    found = {
        "in the user's items": [100 * f.grounding for f in findings],
        "in random items": [100 * f.chance for f in findings],
    }
    return [
        (
            "Telling words of a profile: lifted among the user's items, and only told where they are.",
            histogram(
                {"": telling},
                xlabel="telling words, % of a profile's words",
                ylabel="profiles",
                name="telling words",
                bins=list(100 * share),
            ),
        ),
        (
            "Grounding: content words that stand in the user's own items, and in as many drawn at random.",
            histogram(
                found,
                xlabel="words found, % of the content words",
                ylabel="profiles",
                name="grounding",
                bins=list(100 * share),
            ),
        ),
        (
            "Distinctness: how near the nearest other profile's vector is.",
            histogram(
                {"": quality.nearest},
                xlabel="cosine with the nearest other profile",
                ylabel="profiles",
                name="nearest profile",
            ),
        ),
    ]
