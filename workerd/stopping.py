"""Stopping jobs: the signal, the grace, the kill, and the last resort.

Done in the daemon: whoever asked may go away. That a stop was asked for is recorded
before the first signal, with its signal and its deadline, so that a restarted daemon
goes on with it: the signal may then come a second time, but never not at all.

A job that is just starting is stopped like any other: its PID 1 finds the order in the
control FIFO once the command runs, and a start that never ends is killed by the cgroup.
A paused job is thawed once the order lies in the FIFO, for a frozen PID 1 reads none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable

import msgspec

from workerd import procfs
from workerd.auth import Peer
from workerd.errors import Exhausted, WrongState
from workerd.job import Job, Reason, SignalSent, State, StopOrder, change
from workerd.pausing import running
from workerd.registry import Live, Registry, monotonic, now

log = logging.getLogger("workerd")

_STUCK_AFTER = 3.0
"""seconds after the last resort in which nothing is left, usually"""
_DRAIN_PATIENCE = 2.0
"""seconds that PID 1 has, once all else was killed, to drain and to write the record"""


class Stopper:
    def __init__(self, registry: Registry, settle: Callable[[Live, dict[str, object]], Awaitable[None]]) -> None:
        """`settle` finishes a job that has no processes."""
        self._registry = registry
        self._settle = settle
        self._loop = asyncio.get_running_loop()

    async def stop(self, peer: Peer, ref: str, number: int | None, grace: int | None) -> Job:
        """Signal `number` now, SIGKILL to all after `grace` microseconds (both: as the
        job's spec says). The job as it is then; a finished one stays as it is.
        Raises NoSuchJob, AmbiguousId."""
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        if live is None:
            return job
        await self.begin(live, number, grace, stop_requested=True)
        return live.job

    async def begin(self, live: Live, number: int | None = None, grace: int | None = None, **why: object) -> None:
        """Start a stop, or make the one under way stricter: the earlier deadline holds.
        `why` are the fields of the job that say who wanted it."""
        job = live.job
        if job.state is State.FINISHED:
            return
        if job.state is State.QUEUED:
            fields = {"reason": Reason.STOPPED, "detail": "while it waited", "finished": now(), "stop_requested": True}
            await self._settle(live, fields)
            return
        spec = job.spec
        order = StopOrder(number or spec.stop_signal, monotonic() + (spec.grace if grace is None else grace))
        if job.state is State.STOPPING:
            if job.stop is not None and job.stop.deadline < order.deadline:
                order = msgspec.structs.replace(order, deadline=job.stop.deadline)
            live.job = msgspec.structs.replace(job, stop=order)
        else:
            live.job = change(job, State.STOPPING, stop=order, **why)
        await self._registry.record(live.job)
        if self._registry.get(job.id) is live:
            self._carry_out(live, order.signal)

    async def stop_everything(self) -> None:
        """Stop every job that there is, and wait for their ends."""
        everyone = list(self._registry)
        for live in everyone:
            await self.begin(live, stop_requested=True)
        await asyncio.gather(*(self._registry.finished(live.job) for live in everyone))

    def resume(self, live: Live) -> None:
        """Go on with a stop that an earlier daemon began."""
        if live.job.stop is None:
            spec = live.job.spec
            live.job = msgspec.structs.replace(live.job, stop=StopOrder(spec.stop_signal, monotonic() + spec.grace))
        self._carry_out(live, live.job.stop.signal if live.job.stop else live.job.spec.stop_signal)

    async def kill(self, peer: Peer, ref: str, number: int, *, everyone: bool) -> Job:
        """Signal `number` to the command, or to every process of the job. A paused job
        gets it when it is resumed, but SIGKILL at once. Raises WrongState where it is
        not running, Exhausted, NoSuchJob, AmbiguousId."""
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        try:
            if live is None or not live.files.signal(number, everyone=everyone):
                raise WrongState(f"job {job.id} is {job.state}: it takes no signals", id=job.id, state=job.state)
        except BlockingIOError as error:
            raise Exhausted(f"job {job.id} does not take its signals; stop it", id=job.id) from error
        live.job = msgspec.structs.replace(live.job, signaled=SignalSent(number, now(), peer.uid))
        if number == signal.SIGKILL and live.job.state is State.PAUSED:
            live.job = running(live.job)
            live.thaw()
        await self._registry.record(live.job)
        return live.job

    def _carry_out(self, live: Live, number: int) -> None:
        with contextlib.suppress(BlockingIOError):
            live.files.signal(number, everyone=False)
        live.thaw()
        assert live.job.stop is not None
        self._arm(live, live.job.stop.deadline / 1e6, self._kill_all)

    def _arm(self, live: Live, when: float, act: Callable[[Live], None]) -> None:
        if live.stop_timer is not None:
            live.stop_timer.cancel()
        live.stop_timer = self._loop.call_at(when, act, live)

    def _kill_all(self, live: Live) -> None:
        """SIGKILL to everything but PID 1, which then drains the output and writes the
        outcome; to PID 1 too where that takes too long."""
        try:
            live.files.signal(signal.SIGKILL, everyone=True)
        except OSError as error:
            log.warning("job %s: %s", live.job.id, error)
        live.thaw()
        self._arm(live, self._loop.time() + _DRAIN_PATIENCE, self._kill_init)

    def _kill_init(self, live: Live) -> None:
        """The kernel then kills the whole PID namespace; the cgroup is the second line,
        and the first for a start that hangs."""
        live.stop_timer = None
        if live.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(live.pidfd, signal.SIGKILL)
        if live.cgroup is not None:
            with contextlib.suppress(OSError):
                live.cgroup.kill()
        self._arm(live, self._loop.time() + _STUCK_AFTER, self._say_stuck)

    def _say_stuck(self, live: Live) -> None:
        """It was killed and has not ended: its processes wait for something in the kernel.
        There is no more to be done, but to say so."""
        live.stop_timer = None
        pids: list[int] = []
        if live.cgroup is not None:
            with contextlib.suppress(OSError):
                pids = [pid for pid in live.cgroup.procs() if procfs.waits_in_kernel(pid)]
        which = f"process {pids[0]} waits in the kernel (state D), for a disk, say" if pids else "it has not ended yet"
        warning = f"it cannot be killed now: {which}; the job is finished once that is over"
        log.error("job %s: %s", live.job.id, warning)
        live.job = msgspec.structs.replace(live.job, warnings=(*live.job.warnings, warning))
