"""Limits in time: `timeout` on how long a job runs, `cpu_time` on the CPU time it uses.

The time that counts is the time that the job was running by CLOCK_MONOTONIC: paused
time does not count, nobody's setting of the clock matters, and since the job's clock is
recorded a restarted daemon goes on with it (what ran out meanwhile is acted on at once).
Each try of a job that is restarted has the whole time.

CPU time is what cpu.stat says of the job's cgroup, so all its processes count, also
those that ended. No event tells of it. A timer is set for the moment at which what is
left could be spent at the earliest, with every CPU that the job may use at work, and
set again until it is spent: each look at least halves the way of a job that is busy,
and a job that idles is looked at once a second at most.
"""

from __future__ import annotations

import asyncio
import logging
import os

from workerd.errors import WorkerError
from workerd.job import Job, OnTimeout, State
from workerd.pausing import Pauser
from workerd.registry import Live, Registry, monotonic
from workerd.stopping import Stopper

log = logging.getLogger("workerd")

SHORTEST_LOOK = 0.05
"""seconds between two looks at a busy job's CPU time: what it may be over by, times its CPUs"""
IDLE_LOOK = 1.0
"""the same, of a job that uses next to nothing"""
_IDLE_SHARE = 0.01
_LONGEST_TIMER = 86_400.0

TIMEOUT, CPU_TIME = "timeout", "cpu-time"
"""what Job.timed_out says"""


class Deadlines:
    """Owns the timers; follows the jobs' states as they are committed."""

    def __init__(self, registry: Registry, stopper: Stopper, pauser: Pauser, tasks: asyncio.TaskGroup) -> None:
        self._registry = registry
        self._stopper = stopper
        self._pauser = pauser
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        registry.observers.append(self._changed)

    def start(self) -> None:
        """Take up the jobs that run already."""
        for live in self._registry:
            self._changed(live.job)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._registry.observers.remove(self._changed)

    def _changed(self, job: Job) -> None:
        for which in (TIMEOUT, CPU_TIME):
            if (timer := self._timers.pop((job.id, which), None)) is not None:
                timer.cancel()
        live = self._registry.get(job.id)
        if live is None or live.job.state is not State.RUNNING or live.job.timed_out is not None:
            return  # one that was resumed after its time runs on without limit
        if live.job.spec.timeout is not None:
            self._look_at_clock(live)
        if live.job.spec.cpu_time is not None:
            self._look_at_cpu(live, None, 0.0)

    def _look_at_clock(self, live: Live) -> None:
        job = live.job
        if not _counts(job) or job.spec.timeout is None or job.clock is None:
            return
        left = (job.spec.timeout - job.clock.ran_until(monotonic())) / 1e6
        if left > 0:
            self._arm(live, TIMEOUT, left, self._look_at_clock, live)
        else:
            self._tasks.create_task(self._over(live, TIMEOUT))

    def _look_at_cpu(self, live: Live, before: int | None, waited: float) -> None:
        """`before` is what had been used at the last look, `waited` seconds ago."""
        job = live.job
        if not _counts(job) or job.spec.cpu_time is None or live.cgroup is None:
            return
        try:
            used = live.cgroup.cpu_usec()
        except OSError:
            return  # it just ended
        left = job.spec.cpu_time - used
        if left <= 0:
            self._tasks.create_task(self._over(live, CPU_TIME))
            return
        idle = before is not None and used - before < _IDLE_SHARE * waited * 1e6
        wait = cpu_wait(left, _cpus(job), waited if idle else 0.0)
        self._arm(live, CPU_TIME, wait, self._look_at_cpu, live, used, wait)

    def _arm(self, live: Live, which: str, seconds: float, look: object, *arguments: object) -> None:
        assert callable(look)
        self._timers[live.job.id, which] = self._loop.call_later(min(seconds, _LONGEST_TIMER), look, *arguments)

    async def _over(self, live: Live, which: str) -> None:
        self._timers.pop((live.job.id, which), None)
        if not _counts(live.job):
            return
        try:
            if live.job.spec.on_timeout is OnTimeout.PAUSE:
                try:
                    await self._pauser.pause_job(live, timed_out=which)
                    return
                except WorkerError as error:
                    log.warning("%s: it is stopped instead", error)
            await self._stopper.begin(live, timed_out=which)
        except WorkerError as error:
            log.error("job %s: its time is over, but: %s", live.job.id, error)


def cpu_wait(left: int, cpus: float, idle_for: float) -> float:
    """Seconds to the next look at a job that may use `left` microseconds more, on so many
    CPUs at once; after `idle_for` seconds in which it used next to nothing. Pure."""
    soonest = left / 1e6 / cpus
    patience = min(max(2 * idle_for, SHORTEST_LOOK), IDLE_LOOK)
    return max(soonest, patience)


def _counts(job: Job) -> bool:
    return job.state is State.RUNNING and job.timed_out is None


def _cpus(job: Job) -> float:
    """At most so many CPUs' worth of time a second."""
    there = float(os.cpu_count() or 1)
    held = job.effective.cpus if job.effective is not None else None
    return min(held or there, there)
