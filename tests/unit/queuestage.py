"""A queue without a daemon around it, for tests: real jobs in a real store, of which only
what becomes of them is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from workerd import config
from workerd.job import Job, JobSpec, State, change
from workerd.jobfiles import JobFiles
from workerd.queue import Queue
from workerd.registry import Live, Registry
from workerd.store import Store
from workerd.storethread import StoreThread
from workerd.supervisor import Supervisor


def a_job(job_id: str, state: State, *, uid: int = 0, **fields: Any) -> Job:
    spec = JobSpec(argv=("true",))
    return Job(id=job_id, uid=uid, gid=uid, groups=(), spec=spec, state=state, created=1, boot_id="boot", **fields)


class Stage:
    """`became` tells in turn what jobs did; a start goes on until it is let `go`, if at all."""

    def __init__(self, base: Path, tasks: asyncio.TaskGroup) -> None:
        self._base = base
        self._closed = False
        self.store = StoreThread(Store.open(base / "state.db"))
        self.registry = Registry(config.Config(), self.store, lambda job_id: str(base / job_id))
        self.became: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.go = asyncio.Semaphore(0)
        supervisor = SimpleNamespace(
            registry=self.registry, boot_id="boot", place=SimpleNamespace(state_dir=str(base)), files=self._files,
            cleared=None, settle=self._settle, start_waiting=self._start,
        )  # fmt: skip
        self.queue = Queue(cast(Supervisor, supervisor), tasks)

    def live(self, job: Job) -> Live:
        self.store.store.insert(job, {})
        (self._base / job.id).mkdir()
        live = Live(job, self._files(job.id))
        self.registry.add(live)
        return live

    def told(self) -> list[tuple[str, str]]:
        """What is there by now."""
        return [self.became.get_nowait() for _ in range(self.became.qsize())]

    def _files(self, job_id: str) -> JobFiles:
        return JobFiles(str(self._base), str(self._base), job_id)

    async def _settle(self, live: Live, fields: dict[str, object]) -> None:
        live.job = change(live.job, State.FINISHED, **fields)
        self.became.put_nowait((live.job.id, f"{fields['reason']}: {fields['detail']}"))

    async def _start(self, live: Live) -> None:
        self.became.put_nowait((live.job.id, "started"))
        await self.go.acquire()

    async def close(self, *, patience: float = 10.0) -> None:
        """As the daemon ends. Can be repeated."""
        if self._closed:
            return
        self._closed = True
        for _ in range(1000 if patience else 0):
            self.go.release()
        await self.queue.close(patience)
        self.registry.close()


def run_with(base: Path, body: Callable[[Stage], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            stage = Stage(base, tasks)
            try:
                await body(stage)
            finally:
                await stage.close()
                stage.store.close()

    asyncio.run(main())
