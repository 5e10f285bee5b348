"""Jobs a second from Python: one after the other with the blocking client, many at once with
AsyncClient, and through CommandExecutor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.bench.figures import by_turns, goal, ratio, show
from tests.bench.installed import installed
from tests.host.daemon import ENV
from workerctl import AsyncClient, Client, CommandExecutor, JobSpec

JOBS, ROUNDS, AT_ONCE = 200, 3, 8
TRUE = JobSpec(argv=("/bin/true",))


def run() -> None:
    with installed() as daemon:
        path = str(daemon.socket)
        cases = {
            "Client, one by one": lambda: _blocking(path),
            f"AsyncClient, {AT_ONCE} at once": lambda: asyncio.run(_concurrent(path)),
            "CommandExecutor, 1 at once": lambda: _executor(path, 1),
            f"CommandExecutor, {AT_ONCE} at once": lambda: _executor(path, AT_ONCE),
        }
        measured = {name: _rate(case) for name, case in cases.items()}
        table = show("Jobs a second from Python", by_turns(measured, ROUNDS), "Client, one by one", unit="/s")
    one, many = "CommandExecutor, 1 at once", f"CommandExecutor, {AT_ONCE} at once"
    goal("CommandExecutor, 1 at once / Client", ratio(table, one), 0.75, at_least=True)
    goal(f"CommandExecutor, {AT_ONCE} at once / Client", ratio(table, many), 1.0, at_least=True)


def _rate(case: Callable[[], None]) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        begin = time.perf_counter()
        case()
        return [JOBS / (time.perf_counter() - begin)]

    return measure


def _blocking(path: str) -> None:
    with Client(path) as client:
        for _ in range(JOBS):
            assert client.wait(client.run(TRUE, env=ENV)).succeeded


async def _concurrent(path: str) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(client: AsyncClient) -> None:
        async with places:
            assert (await client.wait(await client.run(TRUE, env=ENV))).succeeded

    async with AsyncClient(path) as client, asyncio.TaskGroup() as group:
        for _ in range(JOBS):
            group.create_task(one(client))


def _executor(path: str, at_once: int) -> None:
    with CommandExecutor(at_once, socket_path=path, env=ENV) as executor:
        assert all(result.succeeded for result in executor.map([TRUE] * JOBS))
