"""Forgetting finished jobs: their output, then their record.

In this order, so that a daemon that dies in between leaves a record without output,
which can be removed again, and never output that no record speaks of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from workerd.auth import Peer, is_admin
from workerd.errors import WrongState
from workerd.job import Job, State
from workerd.jobfiles import JobFiles
from workerd.protocol import PruneParams
from workerd.registry import Registry, now
from workerd.stopping import Stopper

_PAGE = 1000
_BATCH = 200
"""jobs forgotten between two looks at the rest of the world"""


class Remover:
    def __init__(self, registry: Registry, stopper: Stopper, files: Callable[[str], JobFiles]) -> None:
        self._registry = registry
        self._stopper = stopper
        self._files = files

    async def remove(self, peer: Peer, ref: str, *, force: bool) -> Job:
        """Forget a finished job; with `force`, stop it first. The job as it was.
        Raises WrongState, NoSuchJob, AmbiguousId."""
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        if live is not None and live.job.state is State.FINISHED:
            await self._registry.call(lambda store: None)  # behind the commit of its end
            job = live.job
        elif live is not None:
            if not force:
                message = f"job {job.id} is {live.job.state}: stop it first, or remove it with --force"
                raise WrongState(message, id=job.id, state=live.job.state)
            await self._stopper.begin(live, stop_requested=True)
            job = await self._registry.finished(job)
        await self.forget([job.id])
        return job

    async def prune(self, peer: Peer, params: PruneParams) -> tuple[list[Job], int]:
        """Forget the peer's finished jobs (an admin's: everybody's) that meet all
        conditions, or only say which: (the jobs, the bytes that they took)."""
        jobs = select(await self._finished(peer, params), params, now())
        size = await asyncio.to_thread(lambda: sum(disk_use(self._files(job.id)) for job in jobs))
        if not params.dry_run:
            await self.forget([job.id for job in jobs])
        return jobs, size

    async def forget(self, ids: Sequence[str]) -> None:
        """Remove all that there is of these jobs; they must be finished. Can run twice."""
        for first in range(0, len(ids), _BATCH):
            batch = ids[first : first + _BATCH]
            await asyncio.to_thread(self._remove_files, batch)
            await self._registry.call(lambda store, batch=batch: store.delete(batch))  # type: ignore[misc]

    def _remove_files(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            self._files(job_id).remove_state()

    async def _finished(self, peer: Peer, params: PruneParams) -> list[Job]:
        """Newest first."""
        uid = None if is_admin(peer, self._registry.config.policy) else peer.uid
        jobs: list[Job] = []
        before: str | None = None
        while True:
            page = await self._registry.call(
                lambda store, before=before: store.list(uid, (State.FINISHED,), _PAGE, before, params.labels)  # type: ignore[misc]
            )
            jobs += page
            if len(page) < _PAGE:
                return jobs
            before = page[-1].id


def select(jobs: Sequence[Job], params: PruneParams, now: int) -> list[Job]:
    """Those of the finished jobs that all conditions of `params` name; of the ones that
    the reasons and labels name, the `keep` that ended last stay. Pure."""
    named = [job for job in jobs if not params.reasons or job.reason in params.reasons]
    named.sort(key=lambda job: job.finished or 0, reverse=True)
    if params.keep is not None:
        named = named[params.keep :]
    if params.older_than is not None:
        named = [job for job in named if (job.finished or 0) < now - params.older_than]
    return named


def disk_use(files: JobFiles) -> int:
    """Bytes on disk of a job's output; holes take none."""
    size = 0
    for path in (files.log, files.index):
        try:
            size += os.stat(path).st_blocks * 512
        except FileNotFoundError:
            continue
    return size
