"""A job that waits for another's end, at each moment at which that end may come: while it
runs, told but not yet committed (as long as the disk is full, or for an instant of any
start of the daemon), and committed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.unit.queuestage import Stage, a_job, run_with
from workerd import exitrecord, storethread
from workerd.evidence import Account, Evidence
from workerd.job import After, Outcome, Reason, State

FIRST, SECOND = "aaaaaaaaaa", "bbbbbbbbbb"
RUNS = a_job(FIRST, State.RUNNING)
FAILED = a_job(FIRST, State.FINISHED, reason=Reason.EXITED, exit_code=1, finished=2)
FINAL = Evidence(Account(None, oom_killed=False), exitrecord.Ended(1, None, 1, 2, 1, 0, 0), {})
OUTCOMES = [
    (Outcome.ANY, "started"),
    (Outcome.FAILED, "started"),
    (Outcome.OK, f"skipped: {FIRST} was to succeed, but it exited with 1"),
]


def second(stage: Stage, outcome: Outcome) -> None:
    stage.live(a_job(SECOND, State.QUEUED, after=(After(FIRST, outcome),)))


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_told_and_not_committed_when_the_queue_starts(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        stage.live(FAILED)
        second(stage, outcome)
        await stage.registry.record(FAILED)
        stage.queue.start()
        assert await stage.became.get() == (SECOND, became)

    run_with(tmp_path, body)


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_comes_while_it_waits(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        first = stage.live(RUNS)
        second(stage, outcome)
        stage.queue.start()
        first.job = FAILED
        await stage.registry.settle(first)
        assert await stage.became.get() == (SECOND, became)

    run_with(tmp_path, body)


def test_an_end_that_another_waits_for_does_not_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storethread, "LINGER", 1000.0)

    async def body(stage: Stage) -> None:
        first, third = stage.live(RUNS), stage.live(a_job("cccccccccc", State.RUNNING))
        second(stage, Outcome.FAILED)
        stage.queue.start()
        third.job = msgspec.structs.replace(FAILED, id=third.job.id)
        first.evidence = third.evidence = FINAL
        nobodys = asyncio.ensure_future(stage.registry.settle(third))
        await asyncio.sleep(0.05)
        assert not nobodys.done()
        first.job = FAILED
        await stage.registry.settle(first)
        await nobodys
        assert await stage.became.get() == (SECOND, "started")

    run_with(tmp_path, body)


@pytest.mark.parametrize(("outcome", "became"), OUTCOMES)
def test_committed_before(tmp_path: Path, outcome: Outcome, became: str) -> None:
    async def body(stage: Stage) -> None:
        first = stage.live(FAILED)
        second(stage, outcome)
        await stage.registry.settle(first)
        assert stage.registry.get(FIRST) is None
        stage.queue.start()
        assert await stage.became.get() == (SECOND, became)

    run_with(tmp_path, body)
