"""The command of a job waits until the job is recorded; all else of it does not."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import Daemon, until, wchan
from tests.host.freezable import FreezableDisk, freezable
from workerd import errors
from workerd.job import State

SECONDS = 60.0
"""that the disk and the daemon may take"""


@pytest.fixture
def disk() -> Iterator[FreezableDisk]:
    """The daemon's state is on it."""
    with freezable(with_state=True) as made:
        yield made


@contextlib.contextmanager
def asked_for(disk: FreezableDisk, marker: Path) -> Iterator[list[str]]:
    """A job that makes the marker, while its record cannot be written: its id, once there is
    an answer. Within, its PID 1 has come as far as it may."""
    ids: list[str] = []

    def run() -> None:
        with contextlib.suppress(errors.ConnectionFailed, OSError):
            ids.append(disk.run("touch", str(marker), cwd=str(marker.parent)))

    disk.freeze()
    asking = threading.Thread(target=run)
    asking.start()
    try:
        until(lambda: any(waits_for_a_word(pid) for pid in disk.processes()), SECONDS)
        yield ids
    finally:
        disk.thaw()
        asking.join(SECONDS)


def waits_for_a_word(pid: int) -> bool:
    return "recvmsg" in wchan(pid) or "wait_for_more_packets" in wchan(pid)


def test_the_command_runs_once_the_record_is_written(disk: FreezableDisk, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    other = disk.run("sleep", "1000")
    with asked_for(disk, marker) as ids, disk.client() as client:
        assert client.status(other).state is State.RUNNING  # who needs no disk is served
        time.sleep(0.2)
        assert not marker.exists() and not ids
    assert disk.wait(ids[0]).exit_code == 0
    assert marker.exists()


def test_a_daemon_that_dies_before_leaves_nothing_that_runs(disk: FreezableDisk, tmp_path: Path) -> None:
    """The record may be there all the same: whether the write that waits is carried out once
    the disk answers is the kernel's to say."""
    marker = tmp_path / "marker"
    with asked_for(disk, marker) as ids:
        assert disk.process is not None
        disk.process.kill()
        disk.thaw()
        disk.process.wait(SECONDS)
    disk.start()
    assert not ids
    with disk.client() as client:
        until(lambda: not list(disk.cgroup.glob("jobs/uid-*/job-*")), SECONDS)
        jobs = list(client.list(all=True))
    assert [job.state for job in jobs] in ([], [State.FINISHED])
    assert [job.start_error.step for job in jobs if job.start_error] == ["init"] * len(jobs)
    assert not marker.exists()
    assert not list((disk.runtime / "jobs").iterdir())


LATE = """
from workerd import storethread
answer = storethread.StoreThread._answer
storethread.StoreThread._answer = lambda self, answers: self._loop.call_later(1.0, answer, self, answers)
"""
"""the loop learns a second later what the store has done"""


def test_once_it_is_recorded_it_waits_for_nobody() -> None:
    daemon = Daemon()
    daemon.prelude = LATE
    try:
        daemon.start()
        job = daemon.run("date", "+%s.%N")
        answered = time.time()
        daemon.wait(job)
        assert answered - float(daemon.output(job)) > 0.5
    finally:
        daemon.close()
