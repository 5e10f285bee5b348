"""A process that cannot be killed, since its file system is frozen (state D): its job is
`stopping`, that is said, and nobody else waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from tests.host.daemon import Daemon, state_of, until
from tests.host.freezable import FreezableDisk, freezable
from workerd import errors
from workerd.job import Job, Reason, State

SECONDS = 60.0
"""that the disk and the daemon may take"""
WRITES = "trap '' TERM; echo ready; while :; do echo more >> file; done"


@pytest.fixture
def disk() -> Iterator[FreezableDisk]:
    with freezable() as made:
        yield made


def stuck(daemon: Daemon, job_id: str) -> bool:
    """Whether a process of the job waits for the disk."""
    procs = daemon.cgroup / f"jobs/uid-0/job-{job_id}/cgroup.procs"
    return any(state_of(int(pid)) == "D" for pid in procs.read_text().split())


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


def test_a_job_that_cannot_be_killed_is_stopping_and_holds_up_nobody(disk: FreezableDisk) -> None:
    held = disk.run("sh", "-c", WRITES, cwd=str(disk.disk), grace=100_000)
    other = disk.run("sh", "-c", "echo other; sleep 1000")
    until(lambda: b"ready" in disk.output(held), SECONDS)
    disk.freeze()
    until(lambda: stuck(disk, held), SECONDS)
    ended: list[Job] = []

    def stop() -> None:
        with disk.client() as client:
            ended.append(client.stop(held))

    stopping = threading.Thread(target=stop)
    stopping.start()
    until(lambda: bool(status(disk, held).warnings), SECONDS)
    job = status(disk, held)
    assert job.state is State.STOPPING
    assert "cannot be killed" in job.warnings[-1]
    began = time.monotonic()
    quick, text = disk.shell("echo served")
    assert (quick.exit_code, text) == (0, "served\n")
    assert time.monotonic() - began < 20
    assert not ended
    disk.thaw()
    stopping.join(60)
    assert [job.reason for job in ended] == [Reason.STOPPED]
    assert status(disk, other).state is State.RUNNING
    until(lambda: not list(disk.cgroup.glob(f"jobs/uid-*/job-{held}")), SECONDS)


def test_a_daemon_that_is_restarted_meanwhile_serves_at_once(disk: FreezableDisk) -> None:
    held = disk.run("sh", "-c", WRITES, cwd=str(disk.disk), grace=100_000)
    until(lambda: b"ready" in disk.output(held), SECONDS)
    disk.freeze()
    until(lambda: stuck(disk, held), SECONDS)
    thread = threading.Thread(target=_stop_in_vain, args=(disk, held))
    thread.start()
    until(lambda: bool(status(disk, held).warnings), SECONDS)
    disk.kill()
    thread.join(60)
    began = time.monotonic()
    disk.start()
    quick, _ = disk.shell("exit 4")
    assert quick.exit_code == 4
    assert time.monotonic() - began < 8, "its start waited for the disk"
    assert status(disk, held).state is State.STOPPING
    disk.thaw()
    job = disk.wait(held)
    assert job.reason is Reason.STOPPED
    until(lambda: not list(disk.cgroup.glob(f"jobs/uid-*/job-{held}")), SECONDS)


def _stop_in_vain(disk: FreezableDisk, job_id: str) -> None:
    with contextlib.suppress(errors.ConnectionFailed, OSError), disk.client() as client:
        client.stop(job_id)
