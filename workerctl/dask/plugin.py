"""The ledger in Dask's scheduler: each worker registers it, the first one's stays.

What must hold: a task whose command was begun goes back to that machine alone, until the
machine has been away for the grace ($DASK_WORKERCTL__GRACE, 30s): then it is lost, or is
placed anew where a retry was asked for. Where a task goes is otherwise Dask's own choice,
among the machines that say they have room for it; it is told what is free there whenever
that changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dask
from dask.utils import parse_timedelta
from distributed.diagnostics.plugin import SchedulerPlugin

from workerctl.dask import ids, resources
from workerctl.dask.ledger import Entry, Ledger, Plain

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler, TaskState

NAME = "workerctl"
GRACE = "30s"
MOST_WAIT = 60.0
"""seconds after which a question is answered though nothing has happened"""


class ClusterPlugin(SchedulerPlugin):
    name = NAME

    async def start(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._grace = parse_timedelta(dask.config.get("workerctl.grace", GRACE))
        self._ledger = Ledger()
        self._machines: dict[str, Plain] = {}
        """by name: address, total, free, uid; the address is None while it is away"""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        scheduler.handlers |= {
            "workerctl_announce": self.announce,
            "workerctl_claim": self.claim,
            "workerctl_placed": self.placed,
            "workerctl_refused": self.refused,
            "workerctl_finished": self.finished,
            "workerctl_machines": self.machines,
            "workerctl_known": self.known,
            "workerctl_where": self.where,
            "workerctl_outcome": self.outcome,
            "workerctl_back": self.back,
            "workerctl_lost": self.lost,
            "workerctl_waiting": self.waiting,
            "workerctl_drop": self.drop,
        }

    # ── Dask's own hooks ──

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        for name, machine in self._machines.items():
            if machine["address"] == worker:
                machine["address"] = None
                self._timers[name] = asyncio.get_running_loop().call_later(self._grace, self._give_up, name)
                self._tell()

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        if not (isinstance(key, str) and key.startswith(ids.KEY_PREFIX)):
            return
        if finish == "forgotten":
            self._ledger.forget(key)
        if finish == "forgotten" or start == "released":
            self._tell()

    # ── what machines say ──

    def announce(self, worker: str, machine: str, uid: int, total: dict[str, float], free: dict[str, float]) -> None:
        """`worker` is its Dask worker's address; `free` is what may still be sent there."""
        if worker not in self._scheduler.workers:
            return
        known = self._machines.get(machine)
        back = known is None or known["address"] != worker
        self._machines[machine] = {"address": worker, "uid": uid, "total": total, "free": free}
        self._scheduler.add_resources(worker, free)
        if back:
            self._welcome(machine, worker)
        self._reschedule(worker)

    def claim(self, key: str, machine: str, worker: str) -> Plain:
        task = self._scheduler.tasks.get(key)
        asked = dict((task.annotations or {}).get(NAME, {})) if task is not None else {}
        if task is not None:
            asked.setdefault("resources", dict(task.resource_restrictions or {}))
        verdict, entry = self._ledger.claim(key, machine, asked)
        if task is not None and not entry.over and entry.machine == machine:
            _bind(task, worker)
            task.suspicious = 0  # a worker's death is no failing of the command's
        return {"verdict": str(verdict), **entry.view()}

    def placed(self, key: str, job: str, warnings: list[str], waits_for: str | None) -> None:
        self._ledger.placed(key, job, list(warnings), waits_for)
        self._tell()

    def refused(self, key: str, error: Plain) -> None:
        self._ledger.refused(key, error)
        if (entry := self._ledger.get(key)) is not None:
            self._free(entry)
        self._tell()

    def finished(self, key: str, job: Plain) -> bool:
        """Whether it is to be run again."""
        again = self._ledger.finished(key, job)
        if (entry := self._ledger.get(key)) is not None:
            self._free(entry)
        self._tell()
        return again

    # ── what clients ask ──

    def machines(self) -> dict[str, Plain]:
        return self._machines

    async def known(self, key: str, seconds: float) -> bool:
        """Whether there is such a command, as soon as there is."""
        await self._until(seconds, lambda: key in self._scheduler.tasks)
        return key in self._scheduler.tasks

    async def where(self, key: str, seconds: float, expected: bool = False) -> Plain:
        """What is known of a command, as soon as it is begun, or known never to be, or the
        time is over (seconds). `expected`: its task may be just coming."""
        await self._until(seconds, lambda: self._begun(key) or not (expected or key in self._scheduler.tasks))
        entry, task = self._ledger.get(key), self._scheduler.tasks.get(key)
        if entry is not None:
            return {"known": True, **entry.view()}
        if task is None:
            return {"known": False}
        return {"known": True, "key": key, "job_id": None, "asked": (task.annotations or {}).get(NAME, {})}

    async def outcome(self, key: str, seconds: float) -> Plain:
        """The same, as soon as it is over."""
        await self._until(seconds, lambda: self._over(key) or key not in self._scheduler.tasks)
        return await self.where(key, 0)

    async def back(self, machine: str, seconds: float, expected: bool = False) -> bool:
        """Whether that machine is there, as soon as it is, or is known not to come back.
        `expected`: it is not known yet, and will come."""

        def settled() -> bool:
            known = self._machines.get(machine)
            return not expected if known is None else known["address"] is not None

        await self._until(seconds, settled)
        return (self._machines.get(machine) or {"address": None})["address"] is not None

    def lost(self, machine: str | None = None, job: str = "") -> list[Plain]:
        """Those that are lost: all, or the one that this id means."""
        if machine is None:
            return [entry.view() for entry in self._ledger.lost()]
        entry = self._ledger.of_job(machine, job)
        return [entry.view()] if entry is not None and entry.over else []

    def waiting(self) -> list[Plain]:
        """The commands that no machine has begun."""
        found = []
        for key, task in self._scheduler.tasks.items():
            asked = (task.annotations or {}).get(NAME)
            entry = self._ledger.get(key) if asked is not None else None
            if asked is not None and task.state not in ("memory", "erred") and (entry is None or not entry.begun):
                found.append({"key": key, "asked": asked})
        return found

    def drop(self, key: str) -> bool:
        """Take back a command that is not begun; whether it was so."""
        entry, task = self._ledger.get(key), self._scheduler.tasks.get(key)
        if task is None or (entry is not None and entry.machine is not None):
            return False
        reason = "taken back before it was begun"
        self._scheduler.stimulus_cancel([key], client="fire-and-forget", force=True, reason="drop", msg=reason)
        return True

    # ── inside ──

    def _begun(self, key: str) -> bool:
        entry = self._ledger.get(key)
        return entry is not None and entry.begun

    def _over(self, key: str) -> bool:
        entry = self._ledger.get(key)
        return entry is not None and entry.over

    async def _until(self, seconds: float, settled: Callable[[], bool]) -> None:
        """Or until the time is over."""
        if settled() or seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, MOST_WAIT)), self._changed:
                await self._changed.wait_for(settled)

    def _tell(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _welcome(self, machine: str, worker: str) -> None:
        """It is there, perhaps again: what was begun there is its own."""
        if (timer := self._timers.pop(machine, None)) is not None:
            timer.cancel()
        for entry in self._ledger.live_on(machine):
            if (task := self._scheduler.tasks.get(entry.key)) is not None:
                _bind(task, worker)
        self._tell()

    def _give_up(self, machine: str) -> None:
        self._timers.pop(machine, None)
        self._machines.pop(machine, None)
        lost, again = self._ledger.give_up(machine)
        for entry in (*lost, *again):
            self._free(entry)
        for worker in tuple(self._scheduler.workers):
            self._reschedule(worker)
        self._tell()

    def _free(self, entry: Entry) -> None:
        """Its task may go anywhere: where there is room for it, or, where it is over, to
        any machine that says so."""
        if (task := self._scheduler.tasks.get(entry.key)) is not None:
            task.worker_restrictions = None
            task.resource_restrictions = {resources.JOBS: 0.0} if entry.over else dict(entry.asked["resources"])

    def _reschedule(self, worker: str) -> None:
        """Have Dask look again at what it had no place for."""
        state = self._scheduler.workers.get(worker)
        if state is not None and state in self._scheduler.running:
            found = self._scheduler.bulk_schedule_unrunnable_after_adding_worker(state)
            self._scheduler.transitions(found, "workerctl-room")


def _bind(task: TaskState, worker: str) -> None:
    """To the machine where its command was begun, which needs no more room for it."""
    task.worker_restrictions = {worker}
    task.resource_restrictions = {}
