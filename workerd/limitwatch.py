"""Jobs that run against their limits, or lose processes for want of memory: recorded when
it happens, as the kernel tells it through inotify on memory.events and pids.events
(kernel: Documentation/admin-guide/cgroup-v2.rst). Nothing is polled.

A job that lives at its limit hits it thousands of times a second: the first hit is told at
once, the next one after a second, then two, up to a minute, each with the count by then.
What is not told before the job's end, its end tells (workerd.events).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from workerd.events import counts_of
from workerd.inotify import Inotify
from workerd.job import State, Usage
from workerd.jobcgroup import JobCgroup
from workerd.registry import Live, Registry

log = logging.getLogger("workerd")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""seconds"""


class LimitWatch:
    """One inotify for all jobs; none where no job can be limited in memory or processes."""

    def __init__(self, registry: Registry, tasks: asyncio.TaskGroup) -> None:
        self._registry = registry
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._inotify: Inotify | None = None
        self._failed = False

    def begin(self, live: Live) -> None:
        """Until the registry lets go of the job. Where no watch can be had, its end tells."""
        if live.cgroup is None or live.unwatch is not None or not (paths := live.cgroup.counted_in()):
            return
        watched = _Watched(self, self._loop, live, live.cgroup)
        try:
            if self._inotify is None:
                self._inotify = Inotify(self._loop)
            for path in paths:
                watched.add(self._inotify, path)
        except OSError as error:
            watched.end()
            if not self._failed:
                log.warning("that jobs hit their limits is told at their end only: %s", error)
            self._failed = True
            return
        live.unwatch = watched.end
        watched.look()  # after the watches are set: nothing is missed between the two

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def record(self, live: Live, usage: Usage) -> None:
        """With the job, so that a restarted daemon knows what was told."""
        live.job = msgspec.structs.replace(live.job, usage=usage)
        self._tasks.create_task(self._record(live))

    async def _record(self, live: Live) -> None:
        if live.job.state is State.FINISHED:
            return
        try:
            await self._registry.record(live.job)
        except Exception:
            log.exception("job %s: that it hit a limit could not be recorded", live.job.id)


class _Watched:
    """One job's watches. Can be ended twice."""

    def __init__(self, owner: LimitWatch, loop: asyncio.AbstractEventLoop, live: Live, cgroup: JobCgroup) -> None:
        self._owner = owner
        self._loop = loop
        self._live = live
        self._cgroup = cgroup
        self._watches: list[tuple[Inotify, int]] = []
        self._pause = FIRST_PAUSE
        self._timer: asyncio.TimerHandle | None = None
        self._again = False
        """whether it was woken since it told something last"""

    def add(self, inotify: Inotify, path: str) -> None:
        """Raises OSError."""
        with contextlib.suppress(FileNotFoundError):  # it has ended
            self._watches.append((inotify, inotify.add(path, self.look)))

    def end(self) -> None:
        for inotify, watch in self._watches:
            inotify.remove(watch)
        self._watches.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        self._again = True
        if self._timer is None:
            self._tell()

    def _tell(self) -> None:
        self._again = False
        try:
            usage = self._cgroup.counts()
        except OSError:
            return  # it is going away, and its end tells
        told, now = counts_of(self._live.job.usage), counts_of(usage)
        if all(new <= old for new, old in zip(now, told, strict=True)):
            return
        self._owner.record(self._live, usage)
        self._timer = self._loop.call_later(self._pause, self._look_again)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _look_again(self) -> None:
        self._timer = None
        if self._again:
            self._tell()
        else:
            self._pause = FIRST_PAUSE
