"""The finished jobs that are kept: pruned by count and age, with their output, as
[history] of the configuration says; and those of `--rm`, which go moments after their end.

Woken by jobs' ends and by one timer, for the moment at which the oldest job is too old.
"""

from __future__ import annotations

import asyncio
import logging
import time

from workerd.errors import WorkerError
from workerd.job import Job, State
from workerd.registry import Registry, now
from workerd.removal import Remover

log = logging.getLogger("workerd")

REMOVE_AFTER = 10.0
"""seconds that a `--rm` job is still there once finished: whoever is just about to ask
how it ended is answered"""
_SETTLE = 0.5
"""seconds in which ends are gathered, so that a thousand of them are one look"""
_LONGEST_TIMER = 86_400.0
_NO_LIMIT = 2**62
_STEP = 3600.0
"""seconds: what the clock is not set by to be put right while nobody looks"""
_TRUSTED_AFTER = 86_400.0
"""seconds"""


class SetClock:
    """Notices that somebody set the wall clock: ages by a wrong one would cost all history,
    so nothing is forgotten for its age before the new one has held for a day."""

    def __init__(self) -> None:
        self._ahead = _ahead()
        self._trusted_from = 0.0

    def trusted(self) -> bool:
        ahead, since_boot = _ahead(), time.clock_gettime(time.CLOCK_BOOTTIME)
        if abs(ahead - self._ahead) > _STEP:
            days = (ahead - self._ahead) / 86_400
            log.warning("the clock was set by %+.1f days: for a day, no finished job is removed for its age", days)
            self._trusted_from = since_boot + _TRUSTED_AFTER
        self._ahead = ahead
        return since_boot >= self._trusted_from


def _ahead() -> float:
    """Seconds that the wall clock is ahead of the one that nobody sets."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class History:
    """Started by `wake`, when the daemon serves; looks again when told."""

    def __init__(self, registry: Registry, remover: Remover, tasks: asyncio.TaskGroup) -> None:
        self._registry = registry
        self._remover = remover
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._removals: dict[str, asyncio.TimerHandle] = {}
        self._running = False
        self._clock = SetClock()
        registry.observers.append(self._changed)

    def start(self) -> None:
        """Also takes up the `--rm` jobs that ended while no daemon was there."""
        self._tasks.create_task(self._take_up())

    def wake(self) -> None:
        """Look soon: a job ended, or the limits are new."""
        self._arm(_SETTLE)

    def close(self) -> None:
        for timer in (self._timer, *self._removals.values()):
            if timer is not None:
                timer.cancel()
        self._removals.clear()
        self._registry.observers.remove(self._changed)

    def _changed(self, job: Job) -> None:
        if job.state is not State.FINISHED:
            return
        if job.spec.remove:
            self._remove_later(job.id)
        self.wake()

    def _remove_later(self, job_id: str) -> None:
        if job_id not in self._removals:
            self._removals[job_id] = self._loop.call_later(REMOVE_AFTER, self._remove, job_id)

    def _remove(self, job_id: str) -> None:
        self._removals.pop(job_id, None)
        self._tasks.create_task(self._forget([job_id]))

    async def _take_up(self) -> None:
        try:
            for job_id in await self._registry.call(lambda store: store.to_remove()):
                self._remove_later(job_id)
        except WorkerError as error:
            log.error("which finished jobs are to be removed could not be read: %s", error)
        await self._look()

    def _arm(self, seconds: float) -> None:
        when = self._loop.time() + min(seconds, _LONGEST_TIMER)
        if self._timer is not None:
            if self._timer.when() <= when and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        self._tasks.create_task(self._look())

    async def _look(self) -> None:
        """One at a time: two would forget the same jobs."""
        if self._running:
            self.wake()
            return
        self._running = True
        try:
            limits = self._registry.config.history
            count = _NO_LIMIT if limits.count is None else limits.count
            trusted = self._clock.trusted()
            before = -1 if limits.age is None or not trusted else now() - limits.age
            # `now` when it is looked: to what had ended by an earlier one, what ends meanwhile is of the future.
            found = await self._registry.call(lambda store: store.prune_candidates(count, before, now()))
            await self._forget(found)
            oldest = await self._registry.call(lambda store: store.oldest_end())
            if not trusted:
                self._arm(_TRUSTED_AFTER)
            elif oldest is not None and limits.age is not None:
                self._arm(max(1.0, (oldest + limits.age - now()) / 1e6))
        except WorkerError as error:
            log.error("the history of jobs could not be read: %s", error)
        finally:
            self._running = False

    async def _forget(self, ids: list[str]) -> None:
        try:
            await self._remover.forget(ids)
        except (WorkerError, OSError) as error:
            log.error("finished jobs could not be removed: %s", error)
