"""Which jobs there are and who may see them: the live ones in memory, all in the store.

A live job's newest state is the one here; the store has it moments later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from workerd import jobrecord, output, protocol
from workerd.auth import Peer, is_admin, may_see
from workerd.backlog import Backlog, Change
from workerd.config import Config
from workerd.errors import Exhausted, NameTaken
from workerd.events import Entry, changes, entries
from workerd.evidence import Evidence
from workerd.heldfiles import HeldFiles
from workerd.job import Job, State, Usage
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles
from workerd.protocol import ListParams
from workerd.recentanswers import RecentAnswers
from workerd.store import Store
from workerd.storethread import StoreThread

T = TypeVar("T")

log = logging.getLogger("workerd")

_SOON = 0.05
"""seconds that a change may wait for its commit with nobody waiting for that"""


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def monotonic() -> int:
    """Microseconds of CLOCK_MONOTONIC: the same for every daemon of one boot, and no
    business of whoever sets the clock."""
    return time.monotonic_ns() // 1000


class Live:
    """A job that is not finished: it has, had or will have processes. Owns the pidfd and the cgroup's fd."""

    __slots__ = (
        *("cgroup", "clearing", "evidence", "files", "job", "pidfd", "recorded"),
        *("stop_timer", "unwatch", "window"),
    )

    def __init__(self, job: Job, files: JobFiles, cgroup: JobCgroup | None = None) -> None:
        self.job = job
        self.files = files
        self.cgroup = cgroup
        self.pidfd = -1
        """of PID 1"""
        self.stop_timer: asyncio.TimerHandle | None = None
        self.window = (24, 80)
        """rows and columns that its terminal starts with, where it has one"""
        self.clearing = False
        """whether something of its last try is still there: it must not start yet"""
        self.recorded: Job | None = job
        """as it was recorded last; None before it is"""
        self.evidence: Evidence | None = None
        """of its end, once that is under way"""
        self.unwatch: Callable[[], None] | None = None
        """ends the watch on the limits that it hits"""

    def thaw(self) -> None:
        """Let a paused job go on; nothing where it is gone."""
        if self.cgroup is not None:
            with contextlib.suppress(OSError):
                self.cgroup.freeze(False)

    def with_usage(self, held: HeldFiles | None = None, jobs: int = 0) -> Job:
        """The job with what it has used and written so far; out of held files where it is
        one of so many jobs that are asked about again and again."""
        if self.cgroup is None or self.job.state is State.FINISHED:
            return self.job
        try:
            if held is None:
                usage, extent = self.cgroup.usage(), output.extent_of(self.files.log, self.files.index)
            else:
                usage, extent = held.read(self.job.id, self.cgroup, self.files, jobs)
        except OSError:
            return self.job  # it ended meanwhile
        return msgspec.structs.replace(self.job, usage=usage, **output.fields_of(extent))


class Registry:
    """`directory` gives a job's directory, for its record beside the database's."""

    def __init__(self, config: Config, store: StoreThread, directory: Callable[[str], str]) -> None:
        self.config = config
        self._directory = directory
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog(store, Store.update, self._keep_end)
        self._live: dict[str, Live] = {}
        self._answers = RecentAnswers()
        self._held = HeldFiles(self._loop)
        self._soon: dict[str, Change] = {}
        self._soon_timer: asyncio.TimerHandle | None = None
        self._soon_task: asyncio.Task[None] | None = None
        self._waiters: dict[str, set[asyncio.Future[Job]]] = {}
        self.waits_for: Callable[[Job], str | None] = lambda job: None
        """says why a queued job waits"""
        self.is_waited_for: Callable[[Job], bool] = lambda job: False
        """says whether others may start once this one has ended"""
        self.observers: list[Callable[[Job], None]] = []
        """called with each job as it was just recorded, in order; must not block"""

    def __iter__(self) -> Iterator[Live]:
        """Those that there are when the first one is asked for."""
        yield from tuple(self._live.values())

    def count(self, *, queued: bool) -> int:
        """How many wait, or else how many are live."""
        jobs = (live.job for live in self._live.values())
        return sum(job.state is State.QUEUED if queued else job.live for job in jobs)

    def close(self) -> None:
        """Nobody waits for the disk any more."""
        self._backlog.close()
        self._held.close()
        if self._soon_timer is not None:
            self._soon_timer.cancel()

    def add(self, live: Live) -> None:
        self._live[live.job.id] = live

    def discard(self, job_id: str) -> None:
        self._live.pop(job_id, None)
        self._soon.pop(job_id, None)
        self._held.forget(job_id)

    def get(self, job_id: str) -> Live | None:
        """By its full id."""
        return self._live.get(job_id)

    def take_in(self, live: Live) -> None:
        """A new job: it counts against the totals from here on. To be recorded by `insert`,
        or discarded. Raises NameTaken."""
        job = live.job
        if job.spec.name is not None:
            self.check_name(job.uid, job.spec.name)
        live.recorded = None
        self._live[job.id] = live

    def insert(self, live: Live, env: dict[str, str], prepare: Callable[[], T]) -> asyncio.Future[T]:
        """Begin to commit a job that was taken in, at once; what is returned is to be
        awaited, and gives what `prepare` did, which is called in the store's thread after the
        commit. Raises Exhausted, also for an OSError of `prepare`; then the job is not there."""
        job = live.job
        events = self._events(live, job)
        change = self._store.change(
            lambda store: store.insert(job, env, events), lambda store: self._keep_admission(store, job, env, prepare)
        )
        change.add_done_callback(lambda done: self._inserted(job, done))  # before whoever awaits it goes on
        return change

    def _inserted(self, job: Job, change: asyncio.Future[T]) -> None:
        if change.cancelled() or change.exception() is not None:
            self._live.pop(job.id, None)
        else:
            self._store.sync_soon()
            self._tell(job)

    def _keep_admission(self, store: Store, job: Job, env: dict[str, str], prepare: Callable[[], T]) -> T:
        """In the store's thread."""
        directory = self._directory(job.id)
        try:
            jobrecord.admit(directory, job, env)
            try:
                return prepare()
            except BaseException:
                jobrecord.remove(directory)
                raise
        except OSError as error:
            store.delete((job.id,))
            where = f"{error.filename}: " if error.filename else ""
            message = f"cannot record a job: {where}{error.strerror}; free space for workerd's state directory"
            raise Exhausted(message, errno=error.errno) from error

    async def record(
        self,
        job: Job,
        used: Usage | None = None,
        *,
        lingers: bool = False,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """Commit a changed job, which holds from now on: False where the disk is full or
        fails, and it is committed as soon as that works again. `used` is what its last
        try had used, where it is to be tried again; `then` as Backlog.commit. Raises NoSuchJob."""
        events = self._events(self._live.get(job.id), job, used)
        if (older := self._soon.pop(job.id, None)) is not None:
            events = (*older.events, *events)
        lingers = lingers and not self.is_waited_for(job)
        committed = await self._backlog.commit(job, events, lingers=lingers, then=then)
        if job.state is State.FINISHED:
            self._store.sync_soon()
        self._tell(job)
        return committed

    def record_soon(self, job: Job) -> None:
        """As `record`, of a change that the next start of workerd would find by itself:
        it is committed with others, moments from now, or with the next change of the job
        where that is earlier. Whoever reads the store finds it there."""
        older = self._soon.get(job.id, Change(job, ()))
        self._soon[job.id] = Change(job, (*older.events, *self._events(self._live.get(job.id), job)))
        if self._soon_timer is None:
            self._soon_timer = self._loop.call_later(_SOON, self._begin_commit)
        self._tell(job)

    def _begin_commit(self) -> None:
        self._soon_task = self._loop.create_task(self._commit_soon())

    async def _commit_soon(self) -> None:
        if self._soon_timer is not None:
            self._soon_timer.cancel()
            self._soon_timer = None
        for done in await asyncio.gather(*map(self._commit_newest, tuple(self._soon)), return_exceptions=True):
            if isinstance(done, Exception):
                log.error("a running job could not be recorded: %s", done)

    async def _commit_newest(self, job_id: str) -> None:
        change = self._soon.pop(job_id, None)
        if change is not None:  # not committed with a later one
            await self._backlog.commit(*change)

    def _events(self, live: Live | None, job: Job, used: Usage | None = None) -> tuple[Entry, ...]:
        """What happens to the job by being recorded as this now."""
        if live is None:
            return ()
        before, live.recorded = live.recorded, job
        return entries(changes(before, job, now(), used))

    def _keep_end(self, store: Store, job: Job) -> None:
        """In the store's thread."""
        if job.state is State.FINISHED:
            try:
                jobrecord.finish(self._directory(job.id), job)
            except OSError as error:
                log.warning("job %s: its end is recorded in the database alone: %s", job.id, error)

    async def recorded(self, job_id: str) -> None:
        """Returns once nothing that `record` was given of this job waits for the disk."""
        await self._backlog.committed(job_id)

    def _tell(self, job: Job) -> None:
        for observer in self.observers:
            observer(job)

    def check_name(self, uid: int, name: str) -> None:
        """Raises NameTaken where a job of that user that is not finished has the name."""
        for live in self._live.values():
            if live.job.uid == uid and live.job.spec.name == name and live.job.state is not State.FINISHED:
                taken = f"the name {name} is taken by job {live.job.id}, which is {live.job.state}"
                raise NameTaken(f"{taken}: choose another, or stop it", id=live.job.id, name=name)

    async def rename(self, peer: Peer, ref: str, name: str | None) -> Job:
        """The job under its new name, or without one. Raises NameTaken, NoSuchJob, AmbiguousId."""
        job = await self.find(peer, ref)
        live = self._live.get(job.id)
        if live is not None:
            job = live.job
            if name is not None and name != job.spec.name:
                self.check_name(job.uid, name)
        renamed = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, name=name))
        if live is not None:
            live.job = renamed
            await self.record(renamed)
        else:
            events = entries(changes(job, renamed, now()))
            await self._store.change(
                lambda store: store.update(renamed, events), lambda store: self._keep_end(store, renamed)
            )
        return renamed

    async def settle(self, live: Live, then: Callable[[], None] | None = None) -> bool:
        """Commit a job that is now finished, and tell those who wait for it. False where
        the commit has to wait (`recorded` tells): until then it stays among the live. `then` as `record`.

        They are told just before the commit begins: should this process be killed before
        it is there, the next one finds the same outcome in the exit record, which stays
        until then; and what they ask next is answered behind it, by the same thread. So the
        commit may linger where there is such a record."""
        job = live.job
        lingers = live.evidence is not None and live.evidence.is_final
        self.release(live)
        for waiter in self._waiters.pop(job.id, ()):
            if not waiter.done():
                waiter.set_result(job)
        await asyncio.sleep(0)  # it is begun behind their answers, in the same turn
        committed = await self.record(job, lingers=lingers, then=then)
        if committed:
            self.discard(job.id)
        return committed

    def release(self, live: Live) -> None:
        """Let go of what the loop knows of a job; can run twice."""
        live.evidence = None
        if live.unwatch is not None:
            live.unwatch()
            live.unwatch = None
        if live.stop_timer is not None:
            live.stop_timer.cancel()
            live.stop_timer = None
        if live.pidfd >= 0:
            self._loop.remove_reader(live.pidfd)
            os.close(live.pidfd)
            live.pidfd = -1

    async def find(self, peer: Peer, ref: str) -> Job:
        """The job that `ref` means to this peer. Raises NoSuchJob, AmbiguousId."""
        policy = self.config.policy
        live = self._live.get(ref)
        if live is not None and may_see(peer, live.job.uid, policy):
            return live.job
        uid = None if is_admin(peer, policy) else peer.uid
        job = await self.call(lambda store: store.find(uid, ref, peer.uid))
        live = self._live.get(job.id)
        return job if live is None else live.job

    async def status(self, peer: Peer, ref: str) -> Job:
        """As `find`, with what a live job has used so far."""
        return self._with_usage(await self.find(peer, ref))

    def status_at_hand(self, peer: Peer, ref: str) -> bytes | None:
        """As `status`, `protocol.encoded`, of a live job by its full id; None of any other. What it has
        used and written may be a millisecond old (workerd.recentanswers)."""
        live = self._live.get(ref)
        if live is None or not may_see(peer, live.job.uid, self.config.policy):
            return None
        answer = self._answers.get(live.job)
        if answer is None:
            asked = live.job
            answer = protocol.encoded(self._with_usage(asked, self._held))
            self._answers.keep(asked, answer)
        return answer

    async def list(self, peer: Peer, params: ListParams) -> list[Job]:
        """Newest first; one more than `limit` where there is more."""
        uid = None if is_admin(peer, self.config.policy) else peer.uid
        states = params.states or (() if params.all else tuple(set(State) - {State.FINISHED}))
        before = None if params.before is None else (await self.find(peer, params.before)).id
        labels = params.labels
        found = await self.call(lambda store: store.list(uid, states, params.limit + 1, before, labels))
        return await asyncio.to_thread(lambda: [self._with_usage(job) for job in found])

    async def finished(self, job: Job) -> Job:
        """The job, once it is finished."""
        live = self._live.get(job.id)
        if live is None:
            return await self.call(lambda store: store.get(job.id))
        if not self.goes_on(job.id):
            return live.job  # told before, and not committed yet
        waiter: asyncio.Future[Job] = self._loop.create_future()
        waiters = self._waiters.setdefault(job.id, set())
        waiters.add(waiter)
        try:
            return await waiter
        finally:
            waiters.discard(waiter)

    def goes_on(self, job_id: str) -> bool:
        """Whether `finished` of this job would wait for its end."""
        live = self._live.get(job_id)
        return live is not None and not (live.job.state is State.FINISHED and live.pidfd < 0)

    async def call(self, function: Callable[[Store], T]) -> T:
        """In the store's thread."""
        if self._soon:
            await self._commit_soon()
        return await self._store.call(function)

    def _with_usage(self, job: Job, held: HeldFiles | None = None) -> Job:
        live = self._live.get(job.id)
        if live is None:
            return job
        if live.job.state is State.QUEUED:
            return msgspec.structs.replace(live.job, waits_for=self.waits_for(live.job))
        return live.with_usage(held, len(self._live))
