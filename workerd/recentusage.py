"""What jobs have used, read from the kernel at most once a millisecond each.

A program that asks again and again would have the kernel sum up the same figures each
time. It brings them up to date at its ticks and context switches alone, a millisecond
apart and more (CONFIG_HZ), so nothing that it knows by then is kept from anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from workerd.job import Usage

LASTS_NS = 1_000_000
_MOST = 256
"""jobs whose figures are kept, for it matters only of those who are asked about just now"""


class RecentUsage:
    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._read: dict[str, tuple[int, Usage]] = {}
        """when, and what it was, by job id"""

    def of(self, job_id: str, read: Callable[[], Usage]) -> Usage:
        """What `read` gives, or gave less than LASTS_NS ago. Raises what it raises."""
        now = self._clock()
        when, usage = self._read.get(job_id, (0, None))
        if usage is None or now - when >= LASTS_NS:
            usage = read()
            if len(self._read) >= _MOST:
                self._read.clear()
            self._read[job_id] = (now, usage)
        return usage

    def forget(self, job_id: str) -> None:
        self._read.pop(job_id, None)
