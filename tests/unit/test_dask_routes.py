"""What the caller's side of the cluster remembers of its machines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workerctl.dask.routes import NoMachines, Routes
from workerd.errors import NoSuchJob

MACHINES = {name: {"address": f"tcp://{name}"} for name in ("alpha", "beta")}
FINISHED = {"id": "a1", "state": "finished"}


class Scheduler:
    """Which has `machines` by name, and those of `coming` too once somebody waits for one,
    or has asked in vain for all."""

    def __init__(self, machines: dict[str, Any], coming: dict[str, Any]) -> None:
        self.machines, self.coming, self.asked = machines, coming, 0

    async def workerctl_machines(self) -> dict[str, Any]:
        self.asked += 1
        if not self.machines and self.asked > 2:
            self.machines = self.coming
        return self.machines

    async def workerctl_lost(self, machine: str, job: str) -> list[Any]:
        return []

    async def workerctl_back(self, machine: str, seconds: float, expected: bool = False) -> bool:
        if expected or machine in self.machines:
            self.machines = {**self.machines, **self.coming}
        return machine in self.machines

    async def proxy(self, msg: dict[str, Any], worker: str) -> dict[str, Any]:
        return {"result": {**FINISHED, "id": msg["params"]["id"]}}


def ask(machines: dict[str, Any], coming: dict[str, Any], seen: set[str]) -> Any:
    client = cast(Any, SimpleNamespace(scheduler=Scheduler(machines, coming)))
    return asyncio.run(Routes(client, seen=seen).call("job.status", {"id": "alpha/a1"}))


class TestAScheduler:
    """One that was restarted has no machine back at first, or not all; each link to it has
    its own Routes, which share what was seen."""

    @pytest.mark.parametrize("back_first", [{}, {"beta": MACHINES["beta"]}])
    def test_a_machine_that_was_seen_through_the_last_one_is_waited_for(self, back_first: dict[str, Any]) -> None:
        seen: set[str] = set()
        ask(MACHINES, {}, seen)
        assert ask(back_first, MACHINES, seen)["id"] == "alpha/a1"

    def test_one_that_never_was_there_is_not(self) -> None:
        seen: set[str] = set()
        ask(MACHINES, {}, seen)
        with pytest.raises(NoSuchJob, match="there is beta"):
            ask({"beta": MACHINES["beta"]}, MACHINES, set())

    def test_where_none_ever_was_there_is_nothing_to_wait_for(self) -> None:
        with pytest.raises(NoMachines):
            ask({}, MACHINES, set())
