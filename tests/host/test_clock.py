"""The wall clock is set by a year, either way: what was to last lasts as long, what ended
is not forgotten, and nothing ends before it began.

(That `--at` follows a clock that is set is shown in the machine: tests/system.)
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import ENV, Daemon
from workerd import protocol
from workerd.job import Job, JobSpec, Reason, State

HERE = Path(__file__).resolve().parent
YEAR = 365 * 86_400
SECOND = 1_000_000
CONFIG = '[history]\ncount = 20\nage = "7d"\n'


class Clocked(Daemon):
    """Its wall clock can be set."""

    def __init__(self) -> None:
        super().__init__(config=CONFIG)
        self.library = self.base / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.library, HERE / "clock.c"], check=True)
        self.offset = self.base / "offset"
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        draft = self.base / "draft"
        draft.write_text(str(seconds))
        draft.rename(self.offset)

    def start(self, **popen: object) -> None:
        env = {**os.environ, "LD_PRELOAD": str(self.library), "WORKER_CLOCK": str(self.offset)}
        super().start(env=env, **popen)


@pytest.fixture
def clocked() -> Iterator[Clocked]:
    daemon = Clocked()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def all_jobs(daemon: Daemon) -> dict[str, Job]:
    with daemon.client() as client:
        return {job.id: job for job in client.list(all=True)}


@pytest.mark.parametrize("way", [1, -1], ids=["forward", "back"])
def test_a_clock_set_by_a_year_changes_no_job(clocked: Clocked, way: int) -> None:
    ended = clocked.wait(clocked.run("true"))
    limited = clocked.run("sleep", "1000", timeout=4 * SECOND)
    endless = clocked.run("sleep", "1000", timeout=1000 * SECOND)
    with clocked.client() as client:
        spec = JobSpec(argv=("true",))
        delayed = client.call("job.run", protocol.RunParams(spec=spec, env=ENV, delay=4 * SECOND)).id
        later = client.call("job.run", protocol.RunParams(spec=spec, env=ENV, delay=1000 * SECOND)).id
    began = time.monotonic()
    clocked.set_clock(way * YEAR)
    new = clocked.wait(clocked.run("sh", "-c", "exit 3"))
    assert new.exit_code == 3
    assert abs(new.created / SECOND - time.time() - way * YEAR) < 3600
    assert clocked.wait(limited).reason is Reason.TIMEOUT
    assert clocked.wait(delayed).exit_code == 0
    assert 2 < time.monotonic() - began < 60
    jobs = all_jobs(clocked)
    assert jobs[ended.id] == ended, "forgotten, or changed"
    assert jobs[endless].state is State.RUNNING
    assert jobs[later].state is State.QUEUED
    assert "the clock was set" in clocked.log.read_text()
    for job in jobs.values():
        assert job.duration is None or 0 <= job.duration < 60 * SECOND
    clocked.restart()
    assert {job_id: job.state for job_id, job in all_jobs(clocked).items()}[later] is State.QUEUED


def test_after_a_clock_is_set_back_the_newest_are_kept_not_those_of_the_future(clocked: Clocked) -> None:
    old = [clocked.wait(clocked.run("true")).id for _ in range(20)]
    clocked.set_clock(-YEAR)
    new = [clocked.wait(clocked.run("true")).id for _ in range(5)]
    deadline = time.monotonic() + 30
    while len(kept := all_jobs(clocked)) > 20:
        assert time.monotonic() < deadline, "nothing was pruned"
        time.sleep(0.1)
    assert set(new) <= set(kept)
    assert set(old[5:]) <= set(kept)
