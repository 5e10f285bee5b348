"""Many jobs of the queue that could start at once: a few of each user's do, and the others
in turn, so that whoever asks for a job meanwhile does not wait for all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.queuestage import Stage, a_job, run_with
from workerd.job import State
from workerd.queue import AT_ONCE

MINE, THEIRS = [f"mine{number:06}" for number in range(3 * AT_ONCE)], "theirs0000"


async def settled(stage: Stage) -> list[str]:
    """The ids of those that were started by now."""
    for _ in range(50):  # turns of the loop; nothing of it waits for anything else
        await asyncio.sleep(0)
    return [job_id for job_id, _ in stage.told()]


def queue_all(stage: Stage) -> None:
    for job_id in MINE:
        stage.live(a_job(job_id, State.QUEUED, uid=1))
    stage.live(a_job(THEIRS, State.QUEUED, uid=2))
    stage.queue.start()


def test_each_that_has_begun_lets_the_next_one_begin(tmp_path: Path) -> None:
    async def body(stage: Stage) -> None:
        queue_all(stage)
        begun = await settled(stage)
        assert sorted(begun) == [*MINE[:AT_ONCE], THEIRS]
        for number in range(AT_ONCE, len(MINE)):
            stage.go.release()  # the oldest of those: of mine, or theirs
            begun += await settled(stage)
            assert number <= len(begun) - 1 <= number + 1
        stage.go.release()
        begun += await settled(stage)
        assert sorted(begun) == [*MINE, THEIRS]

    run_with(tmp_path, body)


@pytest.mark.parametrize("patience", [10, 0], ids=["starts end", "starts hang"])
def test_what_has_not_begun_is_left_to_the_next_daemon(tmp_path: Path, patience: float) -> None:
    async def body(stage: Stage) -> None:
        queue_all(stage)
        assert sorted(await settled(stage)) == [*MINE[:AT_ONCE], THEIRS]
        await stage.close(patience=patience)
        assert await settled(stage) == []
        recorded = [stage.store.store.get(job_id).state for job_id in MINE]
        assert recorded == [State.QUEUED] * len(MINE)

    run_with(tmp_path, body)


def test_a_stop_of_one_that_has_not_begun_is_seen_through(tmp_path: Path) -> None:
    async def body(stage: Stage) -> None:
        queue_all(stage)
        await settled(stage)
        live = stage.registry.get(MINE[-1])
        assert live is not None and live.job.state is State.STARTING
        live.job = a_job(MINE[-1], State.STOPPING, uid=1)
        await stage.close()
        assert await settled(stage) == [MINE[-1]]

    run_with(tmp_path, body)
