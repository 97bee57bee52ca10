"""Peak memory of this process while something runs, by Linux's own counter."""

from __future__ import annotations

import re
from pathlib import Path


class PeakMemory:
    """The highest resident memory since it was made; of several that run at once only the newest is right."""

    def __init__(self) -> None:
        self._start: int | None = None
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak, of this process alone
            self._start = _status("VmRSS")
        except OSError:
            pass  # another system, or not allowed: nothing is told

    def added_bytes(self) -> int | None:
        """Bytes above where it stood at the start, or None where it cannot be told."""
        peak = _status("VmHWM") if self._start is not None else None
        return None if peak is None or self._start is None else 1024 * max(0, peak - self._start)

    def added_mib(self) -> float | None:
        """The same in MiB."""
        added = self.added_bytes()
        return None if added is None else round(added / 2**20, 1)

    def total_mib(self) -> float | None:
        """MiB of the whole process, or None where it cannot be told."""
        peak = _status("VmHWM") if self._start is not None else None
        return None if peak is None else round(peak / 1024, 1)


def _status(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else None
