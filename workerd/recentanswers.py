"""What was just said of a running job, for those who ask again and again.

The kernel brings a job's figures up to date at its ticks and context switches alone, a
millisecond apart and more (CONFIG_HZ), so nothing that it knows by then is kept from
anybody by an answer that is a millisecond old.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from workerd.job import Job

LASTS_NS = 1_000_000
_MOST, _MOST_BYTES = 256, 16 << 10
"""answers that are kept, and bytes of each: until somebody asks again"""


class RecentAnswers:
    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._answers: dict[str, tuple[Job, bytes]] = {}
        """id → the job as it was recorded, and the answer"""
        self._since = 0
        """when the first of them was asked for"""

    def get(self, job: Job) -> bytes | None:
        """The answer of less than LASTS_NS ago, where the job has not changed since."""
        now = self._clock()
        if now - self._since >= LASTS_NS:
            self._answers.clear()
            self._since = now
        before, answer = self._answers.get(job.id, (None, None))
        return answer if before is job else None

    def keep(self, job: Job, answer: bytes) -> None:
        """What is said of it, after `get` gave nothing."""
        if len(self._answers) < _MOST and len(answer) <= _MOST_BYTES:
            self._answers[job.id] = (job, answer)
