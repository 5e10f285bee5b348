"""What could not be committed is kept, in order, and committed when that works again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import msgspec
import pytest

from workerd import backlog, storethread
from workerd.backlog import Backlog
from workerd.errors import Exhausted, NoSuchJob
from workerd.events import Entry
from workerd.job import Job, JobSpec, State
from workerd.store import Store
from workerd.storethread import StoreThread


class Disk:
    """Commits into a real store, unless the disk is full."""

    def __init__(self) -> None:
        self.full = False

    def commit(self, store: Store, job: Job, events: Sequence[Entry]) -> None:
        if self.full:
            raise Exhausted("the disk is full")
        store.update(job, events)


def a_job(job_id: str) -> Job:
    return Job(
        id=job_id, uid=0, gid=0, groups=(), spec=JobSpec(argv=("true",)), state=State.STARTING, created=1, boot_id="b"
    )


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Backlog, StoreThread, Disk], Coroutine[None, None, None]]], None]:
    def run(body: Callable[[Backlog, StoreThread, Disk], Coroutine[None, None, None]]) -> None:
        async def main() -> None:
            disk = Disk()
            thread = StoreThread(Store.open(tmp_path / "state.db"))
            thread.store.insert(a_job("a"), {})
            thread.store.insert(a_job("b"), {})
            made = Backlog(thread, disk.commit)
            try:
                async with asyncio.timeout(20):
                    await body(made, thread, disk)
            finally:
                made.close()
                thread.close()

        asyncio.run(main())

    return run


Run = Callable[[Callable[[Backlog, StoreThread, Disk], Coroutine[None, None, None]]], None]


class TestBacklog:
    def test_kept_while_the_disk_is_full_and_committed_by_the_timer(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            disk.full = True
            ended = msgspec.structs.replace(a_job("a"), state=State.FINISHED)
            assert not await backlog.commit(ended)
            assert thread.store.get("a").state is State.STARTING
            disk.full = False
            await backlog.committed("a")
            assert thread.store.get("a") == ended
            assert len(backlog) == 0

        run(body)

    def test_an_older_state_never_overwrites_a_newer(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            disk.full = True
            await backlog.commit(msgspec.structs.replace(a_job("a"), state=State.RUNNING))
            disk.full = False
            ended = msgspec.structs.replace(a_job("a"), state=State.FINISHED)
            assert await backlog.commit(ended)
            await backlog.committed("a")
            await asyncio.sleep(backlog_settled())
            assert thread.store.get("a") == ended

        run(body)

    def test_a_commit_that_works_brings_the_others_along(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backlog, "FIRST_RETRY", 1000.0)

        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            disk.full = True
            await backlog.commit(msgspec.structs.replace(a_job("a"), state=State.FINISHED))
            disk.full = False
            await backlog.commit(msgspec.structs.replace(a_job("b"), state=State.FINISHED))
            await backlog.committed("a")
            assert thread.store.get("a").state is State.FINISHED

        run(body)

    def test_a_job_that_was_forgotten_meanwhile_stops_nothing(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            disk.full = True
            for job_id in ("a", "b"):
                await backlog.commit(msgspec.structs.replace(a_job(job_id), state=State.FINISHED))
            disk.full = False
            thread.store.delete(("a",))
            await backlog.committed("b")
            assert thread.store.get("b").state is State.FINISHED

        run(body)

    def test_a_job_that_is_not_there_is_no_matter_of_waiting(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            with pytest.raises(NoSuchJob):
                await backlog.commit(a_job("c"))
            assert len(backlog) == 0

        run(body)

    def test_whoever_waits_is_let_go_when_the_daemon_stops(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            disk.full = True
            await backlog.commit(a_job("a"))
            waiting = asyncio.ensure_future(backlog.committed("a"))
            await asyncio.sleep(0)
            backlog.close()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        run(body)


class TestLingering:
    """The end of a job, which nobody waits for, leaves the thread to what somebody waits for."""

    def test_it_is_committed_by_itself_in_the_end(self, run: Run) -> None:
        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            ended = msgspec.structs.replace(a_job("a"), state=State.FINISHED)
            assert await backlog.commit(ended, lingers=True)
            assert thread.store.get("a") == ended

        run(body)

    def test_it_goes_with_the_next_and_before_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storethread, "LINGER", 1000.0)

        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            lingering = asyncio.ensure_future(
                backlog.commit(msgspec.structs.replace(a_job("a"), state=State.FINISHED), lingers=True)
            )
            await asyncio.sleep(0.05)
            assert thread.store.get("a").state is State.STARTING
            assert (await thread.call(lambda store: store.get("a"))).state is State.FINISHED
            assert await lingering

        run(body)

    def test_it_is_committed_where_the_daemon_ends(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storethread, "LINGER", 1000.0)

        async def body(backlog: Backlog, thread: StoreThread, disk: Disk) -> None:
            ended = msgspec.structs.replace(a_job("a"), state=State.FINISHED)
            lingering = asyncio.ensure_future(backlog.commit(ended, lingers=True))
            await asyncio.sleep(0)
            path = thread.store.path
            thread.close()
            lingering.cancel()
            again = Store.open(path)
            assert again.get("a") == ended
            again.close()

        run(body)


class TestSync:
    def test_many_wishes_are_one_wait_for_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []

        async def main() -> None:
            loop, synced = asyncio.get_running_loop(), asyncio.Event()
            thread = StoreThread(Store.open(tmp_path / "state.db"))

            def sync() -> None:
                calls.append(1)
                loop.call_soon_threadsafe(synced.set)

            monkeypatch.setattr(thread.store, "sync", sync)
            for _ in range(1000):
                thread.sync_soon()
            async with asyncio.timeout(20):
                await synced.wait()
            thread.close()

        asyncio.run(main())
        assert len(calls) == 1


def backlog_settled() -> float:
    return backlog.FIRST_RETRY * 2
