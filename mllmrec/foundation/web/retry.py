"""Decide how long to wait before a request is repeated."""

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
    """Return the seconds of the Retry-After header (seconds or an HTTP date), None where it cannot be read.

    A date is compared with the server's own Date header where there is one, so that a wrong clock here does no harm.
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
    """Return the seconds to wait after a failed attempt: doubled each time, less a random part of up to half.

    The random part is a hash: equal runs wait equally, and different requests wait differently.

    Args:
        attempt: the number of the failed attempt, from 0.
        seed: of the hash.
        name: the request.

    Returns:
        Seconds, between half and all of min(30, 0.5 * 2^attempt).
    """
    digest = hashlib.sha256(f"{seed} {name} {attempt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return min(_MOST_SECONDS, _FIRST_SECONDS * 2.0**attempt) * (0.5 + 0.5 * share)
