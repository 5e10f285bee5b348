"""Which finished jobs are forgotten, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from workerd.config import Config
from workerd.config import History as Limits
from workerd.history import History
from workerd.job import Job, JobSpec, State
from workerd.registry import Registry, now
from workerd.removal import Remover
from workerd.store import Store
from workerd.storethread import StoreThread

T = TypeVar("T")


class Forgetful:
    """In a remover's place."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.asked = asyncio.Event()

    async def forget(self, ids: list[str]) -> None:
        self.ids += ids
        self.asked.set()


class Busy(Registry):
    """While it is asked for anything, a job ends."""

    last = ""

    async def call(self, function: Callable[[Store], T]) -> T:
        job_id, self.last = self.last, ""
        if job_id:
            await super().call(lambda store: end(store, job_id))
        return await super().call(function)


def end(store: Store, job_id: str) -> None:
    spec, moment = JobSpec(argv=("true",)), now()
    store.insert(Job(job_id, 1, 1, (), spec, State.FINISHED, created=moment, finished=moment), {})


def test_what_ends_while_the_store_is_waited_for_is_the_newest(tmp_path: Path) -> None:
    forgotten = Forgetful()

    async def main() -> None:
        store = StoreThread(Store.open(tmp_path / "state.db"))
        for job_id in ("a1", "a2", "a3"):
            end(store.store, job_id)
        registry = Busy(Config(history=Limits(count=3)), store, lambda job_id: str(tmp_path))
        registry.last = "a4"
        async with asyncio.TaskGroup() as tasks:
            history = History(registry, cast(Remover, forgotten), tasks)
            history.wake()
            async with asyncio.timeout(20):
                await forgotten.asked.wait()
            history.close()
        registry.close()
        store.close()

    asyncio.run(main())
    assert forgotten.ids == ["a1"]
