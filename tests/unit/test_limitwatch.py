"""Limits that are hit are told as they are, at once and then seldom, and never twice. The
files are ordinary ones: inotify tells of a write to them as of the kernel's own changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from workerd import config, limitwatch
from workerd.blockdev import Caller
from workerd.cgroupfiles import CgroupNode
from workerd.cgrouplimits import Context
from workerd.eventstore import Query
from workerd.job import Job, JobSpec, State, Usage
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles
from workerd.limitwatch import LimitWatch
from workerd.registry import Live, Registry
from workerd.store import Store
from workerd.storethread import StoreThread

PAUSE = 0.15


class Stage:
    """One running job, its watch, and a cgroup's files to write to."""

    def __init__(self, base: Path, tasks: asyncio.TaskGroup, job: Job) -> None:
        self.cgroup = base / "cgroup"
        self.cgroup.mkdir()
        self.set()
        self.store = StoreThread(Store.open(base / "state.db"))
        self.store.store.insert(job, {})
        self.registry = Registry(config.Config(), self.store, lambda job_id: str(base / job_id))
        self.recorded = asyncio.Event()
        self.registry.observers.append(lambda job: self.recorded.set())
        self.watch = LimitWatch(self.registry, tasks)
        context = Context(frozenset({"memory", "pids"}), base, Caller(0))
        cgroup = JobCgroup(CgroupNode(self.cgroup), context)
        self.live = Live(job, JobFiles(str(base), str(base), job.id), cgroup)
        self.registry.add(self.live)

    def set(self, oom: int = 0, memory: int = 0, pids: int = 0) -> None:
        (self.cgroup / "pids.events").write_text(f"max {pids}\n")
        (self.cgroup / "memory.events").write_text(f"low 0\nhigh 0\nmax {memory}\noom {oom}\noom_kill {oom}\n")

    def told(self) -> list[tuple[str, str | None, int | None]]:
        page = self.store.store.read_events(Query(0, "first", (), 500))
        return [(str(event.kind), event.limit, event.count) for event in page.events]

    async def until(self, count: int) -> list[tuple[str, str | None, int | None]]:
        while len(found := self.told()) < count:
            await self.recorded.wait()
            self.recorded.clear()
        return found

    def close(self) -> None:
        self.registry.release(self.live)
        self.watch.close()
        assert self.live.cgroup is not None
        self.live.cgroup.close()


Run = Callable[[Callable[[Stage], Coroutine[None, None, None]]], None]


def a_job(usage: Usage | None = None) -> Job:
    spec = JobSpec(argv=("true",))
    return Job(id="aaaaaaaaaa", uid=0, gid=0, groups=(), spec=spec, state=State.RUNNING, created=1, usage=usage)


def run_with(base: Path, job: Job, body: Callable[[Stage], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with asyncio.TaskGroup() as tasks:
                stage = Stage(base, tasks, job)
                try:
                    await body(stage)
                finally:
                    stage.close()
            stage.store.close()

    asyncio.run(main())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(limitwatch, "FIRST_PAUSE", PAUSE)
    return lambda body: run_with(tmp_path, a_job(), body)


def test_the_first_hit_at_once_those_after_it_together(run: Run) -> None:
    async def body(stage: Stage) -> None:
        stage.watch.begin(stage.live)
        stage.set(memory=1)
        assert await stage.until(1) == [("limit", "memory", 1)]
        for count in range(2, 50):
            stage.set(memory=count, oom=1)
        found = await stage.until(3)
        assert found[1:] == [("limit", "memory", 49), ("oom", None, 1)]
        assert stage.live.job.usage == Usage(memory_max_hits=49, oom_kills=1, pids_max_hits=0)

    run(body)


def test_what_was_hit_before_the_watch_is_told_and_what_an_earlier_daemon_told_is_not(tmp_path: Path) -> None:
    async def body(stage: Stage) -> None:
        stage.set(memory=5, oom=1, pids=3)
        stage.watch.begin(stage.live)
        assert await stage.until(1) == [("limit", "pids", 3)]

    run_with(tmp_path, a_job(Usage(memory_max_hits=5, oom_kills=1)), body)


def test_after_the_job_nothing_is_watched(run: Run) -> None:
    async def body(stage: Stage) -> None:
        stage.watch.begin(stage.live)
        stage.registry.release(stage.live)
        stage.registry.release(stage.live)
        stage.set(memory=1)
        await asyncio.sleep(2 * PAUSE)
        assert stage.told() == []

    run(body)


def test_where_no_watch_is_left_the_job_goes_on_unwatched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(stage: Stage) -> None:
        def fails(*_: object) -> int:
            raise OSError(28, "no inotify watch is left")

        monkeypatch.setattr("workerd.inotify.Inotify.add", fails)
        stage.watch.begin(stage.live)
        stage.watch.begin(stage.live)
        assert stage.live.unwatch is None

    run(body)
