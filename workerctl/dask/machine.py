"""A Dask worker's side of its machine: what is free there, and the calls from outside.

What is free is workerd's to say (daemon.info); Dask holds to it on the worker, and is told
in the scheduler what may still be sent here. What must hold: the worker's resources never
exceed what is free beside the jobs of the tasks that hold them, however late news comes:
so each figure counts only jobs that were there before it was asked for and are there yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from distributed.worker_state_machine import SecedeEvent, UnpauseEvent

from workerctl.dask import resources
from workerctl.dask.daemon import Daemon, Plain, plain
from workerctl.dask.logs import Logs
from workerd.errors import ConnectionFailed, InvalidParams, Unavailable, WorkerError

if TYPE_CHECKING:
    from distributed import Worker

EXTENSION = "workerctl"
FORWARDED = frozenset(
    {
        *("job.status", "job.list", "job.wait", "job.stop", "job.kill", "job.pause", "job.resume", "job.update"),
        *("job.rerun", "job.rename", "job.remove", "output.wait", "output.read", "daemon.info", "job.prune"),
    }
)
"""methods that need no descriptors"""

log = logging.getLogger("distributed.workerctl")


class Machine:
    """`name` is what it is called in ids."""

    def __init__(self, worker: Worker, name: str, socket_path: str | None) -> None:
        self._worker = worker
        self.name = name
        self.daemon = Daemon(socket_path)
        self._logs = Logs(self.daemon.path)
        self._held: dict[str, resources.Amounts] = {}
        """by task: what its running job takes, as Dask counts it"""
        self._total = resources.nothing()
        self._uid = -1
        self._stale = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Before the worker joins. Raises WorkerError."""
        await self._count(self.daemon.call)
        self._worker.extensions[EXTENSION] = self
        self._worker.handlers |= {"workerctl_call": self.call, "workerctl_log": self.read_log}
        for task in (self._announce_always(), self._watch()):
            self._tasks.append(asyncio.get_running_loop().create_task(task))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._logs.close()
        self.daemon.close()

    # ── what is free ──

    def hold(self, key: str, takes: resources.Amounts) -> None:
        """The task's job is there, and takes what workerd does not call free any more."""
        self._held[key] = takes
        self._stale.set()

    def secede(self, key: str) -> None:
        """The task only waits from now on, and keeps no place among the worker's threads."""
        event = SecedeEvent(key=key, compute_duration=None, stimulus_id=f"workerctl-{time.time()}")
        self._worker.handle_stimulus(event)

    def release(self, key: str) -> None:
        """Its job is gone; whether its room is free again the next count says."""
        held = self._held.pop(key, {})
        state = self._worker.state
        self._set(resources.minus(state.total_resources, held))
        self._stale.set()

    async def _count(self, ask: Callable[[str, Plain], Awaitable[Plain]]) -> None:
        """Ask workerd what is free, and let Dask have that much."""
        before = set(self._held)
        info = await ask("daemon.info", {})
        room = resources.offered(info.get("free") or {})
        for key in before & set(self._held):
            room = resources.plus(room, self._held[key])
        self._total, self._uid = resources.offered(info.get("total") or {}), info["uid"]
        self._set(room)

    def _set(self, total: resources.Amounts) -> None:
        state = self._worker.state
        for name, amount in total.items():
            state.available_resources[name] = (
                state.available_resources.get(name, 0.0) + amount - state.total_resources.get(name, 0.0)
            )
            state.total_resources[name] = amount

    async def _announce_always(self) -> None:
        await self._worker  # until it has joined
        self._stale.set()
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._count(self.daemon.call_patiently)
            except WorkerError as error:
                log.error("no commands run here for now: %s", error)
                self._set(resources.nothing())
                self._stale.set()  # patiently, again
            await self._announce()

    async def _announce(self) -> None:
        worker = self._worker
        if worker.status.name == "running":  # what waits here may have room now
            worker.handle_stimulus(UnpauseEvent(stimulus_id=f"workerctl-{time.time()}"))
        with contextlib.suppress(OSError):  # the scheduler is gone, and the worker soon
            await worker.scheduler.workerctl_announce(
                worker=worker.address, machine=self.name, uid=self._uid, total=self._total, free=self._sendable()
            )

    def _sendable(self) -> resources.Amounts:
        """What is free, less what was sent here already and waits."""
        state = self._worker.state
        free = {name: max(0.0, state.available_resources[name]) for name in resources.NAMES}
        for task in list(state.constrained):
            free = resources.minus(free, task.resource_restrictions)
        return {name: max(0.0, amount) for name, amount in free.items()}

    async def _watch(self) -> None:
        """Jobs that are not ours take room too: count again whenever something happens."""
        cursor = "now"
        while True:
            params = {"cursor": cursor, "all": True}
            try:
                cursor = (await self.daemon.call_patiently("events.subscribe", params))["next"]
            except (ConnectionFailed, Unavailable):
                cursor = "now"
            self._stale.set()

    # ── calls from outside ──

    async def call(self, method: str, params: Plain) -> Plain:
        """A method of workerd's, with ids as it knows them: its `result`, or its `error`."""
        try:
            if method not in FORWARDED:
                raise InvalidParams(f"{method} cannot be done from another machine")
            return {"result": await self.daemon.call(method, params)}
        except WorkerError as error:
            return {"error": plain(error)}

    async def read_log(self, job: str, question: Plain) -> Plain:
        try:
            return {"result": await self._logs.answer(job, question)}
        except WorkerError as error:
            return {"error": plain(error)}
        except OSError as error:
            return {"error": plain(WorkerError(f"the output cannot be read: {error.strerror}"))}


def of(worker: Worker) -> Machine | None:
    """None where the worker was started without the preload, or has no workerd."""
    found: Machine | None = worker.extensions.get(EXTENSION)
    return found
