"""Changes of jobs that could not be committed: kept, and committed once that works again.

What must hold: a job's newest state is never overwritten by an older one, a full disk
costs no outcome as long as this daemon lives, nor an event (those of the states that were
skipped come with the newest), and there is no busy waiting: one timer, with growing
intervals, and any commit that succeeds meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from workerd.errors import NoSuchJob, WorkerError
from workerd.events import Entry
from workerd.job import Job
from workerd.store import Store
from workerd.storethread import StoreThread

log = logging.getLogger("workerd")

FIRST_RETRY, LONGEST_RETRY = 0.5, 30.0
"""seconds"""


class Change(NamedTuple):
    job: Job
    events: tuple[Entry, ...]


class Backlog:
    """`write` is how one change of one job is written, with its events, and `after` what
    is done once it is committed; both in the store's thread."""

    def __init__(
        self,
        store: StoreThread,
        write: Callable[[Store, Job, Sequence[Entry]], None],
        after: Callable[[Store, Job], None] = lambda store, job: None,
    ) -> None:
        self._store = store
        self._write = write
        self._after = after
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[str, Change] = {}
        self._committed: dict[str, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._retrying: asyncio.Future[None] | None = None
        self._delay = FIRST_RETRY

    def __len__(self) -> int:
        return len(self._jobs)

    def close(self) -> None:
        """Whoever waits for a commit is cancelled; the next daemon finds what was left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._committed.values():
            future.cancel()
        self._committed.clear()

    async def commit(
        self,
        job: Job,
        events: tuple[Entry, ...] = (),
        *,
        lingers: bool = False,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """Commit a changed job; False where that has to wait. `lingers` as StoreThread.change; `then`
        is called in the store's thread where it is committed by this. Raises NoSuchJob."""

        def after(store: Store) -> None:
            self._after(store, job)
            if then is not None:
                then()

        if (older := self._jobs.pop(job.id, None)) is not None:
            events = (*older.events, *events)
        try:
            await self._store.change(
                lambda store: self._write(store, job, events),
                after,
                lingers=lingers,
            )
        except NoSuchJob:
            raise
        except WorkerError as error:
            log.error("job %s: its state %s could not be recorded yet: %s", job.id, job.state, error)
            self._jobs[job.id] = Change(job, events)
            self._arm(self._delay)
            return False
        self._settle(job)
        if self._jobs:
            self._arm(0)
        return True

    async def committed(self, job_id: str) -> None:
        """Returns once nothing of this job waits any more."""
        while job_id in self._jobs:
            await asyncio.shield(self._committed.setdefault(job_id, self._loop.create_future()))

    def _settle(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        future = self._committed.pop(job.id, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _arm(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._retrying is not None or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._retry)

    def _retry(self) -> None:
        self._timer = None
        changes = list(self._jobs.values())
        self._retrying = asyncio.ensure_future(self._store.call(lambda store: self._commit_all(store, changes)))
        self._retrying.add_done_callback(lambda done: self._retried(done, changes))

    def _commit_all(self, store: Store, changes: Sequence[Change]) -> None:
        for change in changes:
            try:
                self._write(store, change.job, change.events)
                self._after(store, change.job)
            except NoSuchJob:
                continue  # forgotten meanwhile

    def _retried(self, done: asyncio.Future[None], changes: Sequence[Change]) -> None:
        self._retrying = None
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            for change in changes:
                if self._jobs.get(change.job.id) is change:
                    self._settle(change.job)
            log.warning("what could not be recorded before is recorded now: %d jobs", len(changes))
            self._delay = FIRST_RETRY
        else:
            self._delay = min(self._delay * 2, LONGEST_RETRY)
        if self._jobs:
            self._arm(self._delay)
