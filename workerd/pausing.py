"""Pausing and resuming: the freezer of the job's cgroup, confirmed by the kernel.

A frozen job holds its memory and its place in the totals, and uses no CPU. PID 1 is
frozen with it, so signals wait in its control FIFO; stopping thaws (workerd.stopping).
"""

from __future__ import annotations

import asyncio
import contextlib

from workerd.auth import Peer
from workerd.errors import Exhausted, WrongState
from workerd.job import Job, RunClock, State, change
from workerd.registry import Live, Registry, monotonic

_PATIENCE = 10.0
"""seconds in which every process should have come to a place where it can be frozen"""


class Pauser:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def pause(self, peer: Peer, ref: str) -> Job:
        """The paused job; one that is paused stays so. Raises WrongState, Exhausted
        where a process cannot be frozen, NoSuchJob, AmbiguousId."""
        return await self.pause_job(await self._find(peer, ref, "paused"))

    async def resume(self, peer: Peer, ref: str) -> Job:
        """The running job; one that runs stays so. Raises WrongState, NoSuchJob, AmbiguousId."""
        live = await self._find(peer, ref, "resumed")
        if live.job.state is State.PAUSED:
            live.job = running(live.job)  # first, for it may end as soon as it is thawed
            live.thaw()
            await self._registry.record(live.job)
            await self._confirmed(live, frozen=False)
        return live.job

    async def pause_job(self, live: Live, **why: object) -> Job:
        """As `pause`; `why` are fields of the job to change with its state."""
        if live.job.state is State.RUNNING and not await self._freeze(live):
            live.thaw()
            raise Exhausted(
                f"job {live.job.id} could not be paused in {_PATIENCE:g} s: a process of it waits in the kernel "
                "(state D) and cannot be frozen; it runs on",
                id=live.job.id,
            )
        if live.job.state is State.RUNNING:
            live.job = _paused(live.job, **why)
            await self._registry.record(live.job)
        if live.job.state is not State.PAUSED:
            live.thaw()  # it was stopped meanwhile
        self._expect(live, State.PAUSED, "paused")
        return live.job

    async def _find(self, peer: Peer, ref: str, what: str) -> Live:
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        if live is None or live.job.state not in (State.RUNNING, State.PAUSED):
            state = job.state if live is None else live.job.state
            raise WrongState(f"job {job.id} is {state}: it cannot be {what}", id=job.id, state=state)
        return live

    def _expect(self, live: Live, state: State, what: str) -> None:
        if live.job.state is not state:
            found = live.job.state
            raise WrongState(f"job {live.job.id} is {found} by now: it cannot be {what}", id=live.job.id, state=found)

    async def _freeze(self, live: Live) -> bool:
        """Whether the kernel confirms it; True also where the job is gone meanwhile."""
        if live.cgroup is not None:
            with contextlib.suppress(OSError):  # the job ended, and its cgroup with it
                live.cgroup.freeze(True)
        return await self._confirmed(live, frozen=True)

    async def _confirmed(self, live: Live, *, frozen: bool) -> bool:
        cgroup = live.cgroup
        with contextlib.suppress(OSError):
            return cgroup is None or await asyncio.to_thread(cgroup.wait_frozen, frozen, _PATIENCE)
        return True


def reconcile(live: Live) -> None:
    """After a restart of the daemon: what the kernel says holds, for a daemon may have
    died between freezing a job and recording it, or the other way round."""
    frozen = live.cgroup is not None and live.cgroup.frozen()
    if live.job.state is State.RUNNING and frozen:
        live.job = _paused(live.job)
    elif live.job.state is State.PAUSED and not frozen:
        live.job = running(live.job)


def running(job: Job) -> Job:
    """A paused job as it goes on; its clock too."""
    return change(job, State.RUNNING, clock=(job.clock or RunClock()).running(monotonic()))


def _paused(job: Job, **why: object) -> Job:
    return change(job, State.PAUSED, clock=(job.clock or RunClock()).paused(monotonic()), **why)
