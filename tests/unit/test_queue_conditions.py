"""A job that waits for another's end, at each moment at which that end may come: while it
runs, told but not yet committed (as long as the disk is full, or for an instant of any
start of the daemon), and committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workerd import config
from workerd.job import After, Job, JobSpec, Outcome, Reason, State, change
from workerd.jobfiles import JobFiles
from workerd.queue import Queue
from workerd.registry import Live, Registry
from workerd.store import Store
from workerd.storethread import StoreThread
from workerd.supervisor import Supervisor

FIRST, SECOND = "aaaaaaaaaa", "bbbbbbbbbb"


def a_job(job_id: str, state: State, **fields: Any) -> Job:
    spec = JobSpec(argv=("true",))
    return Job(id=job_id, uid=0, gid=0, groups=(), spec=spec, state=state, created=1, boot_id="boot", **fields)


RUNS = a_job(FIRST, State.RUNNING)
FAILED = a_job(FIRST, State.FINISHED, reason=Reason.EXITED, exit_code=1, finished=2)


class Stage:
    """The first job as it is, and a queue; `became` is what the second job did."""

    def __init__(self, base: Path, tasks: asyncio.TaskGroup, first: Job) -> None:
        self._base = base
        self.store = StoreThread(Store.open(base / "state.db"))
        self.registry = Registry(config.Config(), self.store, lambda job_id: str(base / job_id))
        self.became: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        supervisor = SimpleNamespace(
            registry=self.registry, boot_id="boot", place=SimpleNamespace(state_dir=str(base)), files=self._files,
            cleared=None, settle=self._settle, start_waiting=self._start,
        )  # fmt: skip
        self.queue = Queue(cast(Supervisor, supervisor), tasks)
        self.first = self._live(first)

    def second(self, outcome: Outcome) -> None:
        self._live(a_job(SECOND, State.QUEUED, after=(After(FIRST, outcome),)))

    def _files(self, job_id: str) -> JobFiles:
        return JobFiles(str(self._base), str(self._base), job_id)

    def _live(self, job: Job) -> Live:
        self.store.store.insert(job, {})
        (self._base / job.id).mkdir()
        live = Live(job, self._files(job.id))
        self.registry.add(live)
        return live

    async def _settle(self, live: Live, fields: dict[str, object]) -> None:
        live.job = change(live.job, State.FINISHED, **fields)
        self.became.set_result(f"{fields['reason']}: {fields['detail']}")

    async def _start(self, live: Live) -> None:
        self.became.set_result("started")

    def close(self) -> None:
        self.queue.close()
        self.registry.close()


def run_with(base: Path, first: Job, body: Callable[[Stage], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            stage = Stage(base, tasks, first)
            try:
                await body(stage)
            finally:
                stage.close()
                stage.store.close()

    asyncio.run(main())


OUTCOMES = [
    (Outcome.ANY, "started"),
    (Outcome.FAILED, "started"),
    (Outcome.OK, f"skipped: {FIRST} was to succeed, but it exited with 1"),
]


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_told_and_not_committed_when_the_queue_starts(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        stage.second(outcome)
        await stage.registry.record(FAILED)
        stage.queue.start()
        assert await stage.became == became

    run_with(tmp_path, FAILED, body)


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_comes_while_it_waits(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        stage.second(outcome)
        stage.queue.start()
        stage.first.job = FAILED
        await stage.registry.settle(stage.first)
        assert await stage.became == became

    run_with(tmp_path, RUNS, body)


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_committed_before(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        stage.second(outcome)
        await stage.registry.settle(stage.first)
        assert stage.registry.get(FIRST) is None
        stage.queue.start()
        assert await stage.became == became

    run_with(tmp_path, FAILED, body)
