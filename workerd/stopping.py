"""Stopping jobs: the signal, the grace, the kill, and the last resort.

Done in the daemon: whoever asked may go away. That a stop was asked for is recorded
before the first signal, so that a restarted daemon goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from workerd.auth import Peer
from workerd.errors import Exhausted, WrongState
from workerd.job import Job, State, change
from workerd.registry import Live, Registry

log = logging.getLogger("workerd")

_DRAIN_PATIENCE = 2.0
"""seconds that PID 1 has, once all else was killed, to drain and to write the record"""


class Stopper:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()

    async def stop(self, peer: Peer, ref: str, number: int | None, grace: int | None) -> Job:
        """Signal `number` now, SIGKILL to all after `grace` microseconds (both: as the
        job's spec says). The job as it is then; a finished one stays as it is.
        Raises NoSuchJob, AmbiguousId, WrongState."""
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        if live is None:
            return job
        if live.job.state is State.STARTING:
            raise WrongState(f"job {job.id} is just starting; try again", id=job.id, state=live.job.state)
        await self._intend(live)
        spec = live.job.spec
        self._begin(live, number or spec.stop_signal, spec.grace if grace is None else grace)
        return live.job

    async def stop_everything(self) -> None:
        """Stop every job that runs, and wait for their ends."""
        running = [live for live in self._registry if live.job.state is not State.STARTING]
        for live in running:
            await self._intend(live)
            self.resume(live)
        await asyncio.gather(*(self._registry.finished(live.job) for live in running))

    def resume(self, live: Live) -> None:
        """Go on with a stop that an earlier daemon began."""
        self._begin(live, live.job.spec.stop_signal, live.job.spec.grace)

    async def kill(self, peer: Peer, ref: str, number: int, *, everyone: bool) -> Job:
        """Signal `number` to the command, or to every process of the job. Raises
        WrongState where it is not running, Exhausted, NoSuchJob, AmbiguousId."""
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        try:
            if live is None or not live.files.signal(number, everyone=everyone):
                raise WrongState(f"job {job.id} is not running", id=job.id, state=job.state)
        except BlockingIOError as error:
            raise Exhausted(f"job {job.id} does not take its signals; stop it", id=job.id) from error
        return live.job

    async def _intend(self, live: Live) -> None:
        if live.job.state is not State.STOPPING:
            live.job = change(live.job, State.STOPPING, stop_requested=True)
            await self._registry.record(live.job)

    def _begin(self, live: Live, number: int, grace: int) -> None:
        with contextlib.suppress(BlockingIOError):
            live.files.signal(number, everyone=False)
        deadline = self._loop.time() + grace / 1e6
        if live.stop_timer is not None:
            if live.stop_timer.when() <= deadline:
                return  # an earlier stop is stricter
            live.stop_timer.cancel()
        live.stop_timer = self._loop.call_at(deadline, self._kill_all, live)

    def _kill_all(self, live: Live) -> None:
        """SIGKILL to everything but PID 1, which then drains the output and writes the
        outcome; to PID 1 too where that takes too long."""
        try:
            live.files.signal(signal.SIGKILL, everyone=True)
        except OSError as error:
            log.warning("job %s: %s", live.job.id, error)
        live.stop_timer = self._loop.call_later(_DRAIN_PATIENCE, self._kill_init, live)

    def _kill_init(self, live: Live) -> None:
        """The kernel then kills the whole PID namespace; the cgroup is the second line."""
        live.stop_timer = None
        if live.pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(live.pidfd, signal.SIGKILL)
        if live.cgroup is not None:
            live.cgroup.kill()
