"""When to ask again: what the server says, or a growing wait that spreads the callers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
OVERLOADED = frozenset({429, 503, 529})
"""Statuses by which a server asks for less."""

_FIRST_SECONDS = 0.5
_MOST_SECONDS = 30.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the Retry-After header (seconds or an HTTP date), None where there is none to read.

    A date is taken against the server's own clock where it tells it, so that a wrong clock on this side does
    no harm.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        moment = _moment(value)
        if moment is None:
            return None
        seconds = (moment - (_moment(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def backoff(attempt: int, *, seed: int, name: object) -> float:
    """Seconds to wait after failed attempt 0, 1, ...: doubled each time, a random part between half and all of it.

    The random part is a hash of seed, name and attempt: equal runs wait equally, unlike requests apart.
    """
    digest = hashlib.sha256(f"{seed} {name} {attempt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return min(_MOST_SECONDS, _FIRST_SECONDS * 2.0**attempt) * (0.5 + 0.5 * share)
