"""Things run out: what comes new is refused with the reason, what runs keeps its outcome."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import Daemon
from workerd.errors import Exhausted
from workerd.job import Reason, State


class SmallDisk(Daemon):
    """Its state lies on a file system of 4 MiB, in a mount namespace of its own."""

    def command(self) -> list[str]:
        self.state.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size=4m,mode=0700 none {self.state} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *super().command()]

    @property
    def inside(self) -> Path:
        """The state directory as the daemon sees it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.state}")

    def fill(self) -> Path:
        filler = self.inside / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (65_536, 4096, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue
        return filler


@pytest.fixture
def small() -> Iterator[SmallDisk]:
    daemon = SmallDisk()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


class TestFullDisk:
    def test_new_jobs_are_refused_and_running_ones_keep_their_outcome(self, small: SmallDisk) -> None:
        work = small.base / "work"
        work.mkdir()
        os.mkfifo(work / "go")
        running = small.run("sh", "-c", "read line < go; exit 3", cwd=str(work))
        stopped = small.run("sleep", "1000")
        filler = small.fill()
        with pytest.raises(Exhausted) as caught:
            small.run("true")
        assert "space" in str(caught.value)
        (work / "go").write_text("on\n")
        assert small.wait(running).exit_code == 3
        with small.client() as client:
            assert client.stop(stopped).reason is Reason.STOPPED
            assert [job.id for job in client.list()] == []
        filler.unlink()
        job, text = small.shell("echo again")
        assert (job.exit_code, text) == (0, "again\n")
        with small.client() as client:
            ended = client.status(running)
        assert (ended.state, ended.exit_code) == (State.FINISHED, 3)
        until_cleared(small)


class FewInodes(SmallDisk):
    """Its state, or what it has in /run, lies on a file system with few inodes."""

    where = "state"

    def command(self) -> list[str]:
        place = self.state if self.where == "state" else self.runtime
        place.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o nr_inodes=64,mode=0700 none {place} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *Daemon.command(self)]

    def fill(self) -> Path:
        assert self.process is not None
        place = self.state if self.where == "state" else self.runtime
        directory = Path(f"/proc/{self.process.pid}/root{place}/filler")
        directory.mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (directory / str(number)).touch()
        return directory


class FewInodesToRun(FewInodes):
    where = "runtime"


class FewDescriptors(Daemon):
    def command(self) -> list[str]:
        return ["prlimit", "--nofile=96:96", *super().command()]


def until_cleared(daemon: Daemon) -> None:
    """What a job had is removed once everybody was told of its end."""
    deadline = time.monotonic() + 20
    while left := daemon.leftovers():
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.01)


def until_refused(daemon: Daemon, most: int) -> tuple[list[str], Exhausted]:
    """(jobs that wait for a line in `go` to exit with 3, why there are no more)"""
    work = daemon.base / "work"
    work.mkdir()
    os.mkfifo(work / "go")
    started = []
    for _ in range(most):
        try:
            started.append(daemon.run("sh", "-c", "read line < go; exit 3", cwd=str(work)))
        except Exhausted as error:
            return started, error
    raise AssertionError(f"{most} jobs run")


def let_them_end(daemon: Daemon, started: list[str]) -> None:
    fd = os.open(daemon.base / "work" / "go", os.O_RDWR)
    try:
        os.write(fd, b"on\n" * len(started))
        for job_id in started:
            assert daemon.wait(job_id).exit_code == 3
    finally:
        os.close(fd)


def check_that_it_goes_on(daemon: Daemon) -> None:
    job, text = daemon.shell("echo again")
    assert (job.exit_code, text) == (0, "again\n")
    until_cleared(daemon)
    with daemon.client() as client:
        assert [job.id for job in client.list()] == []


class TestInodes:
    @pytest.mark.parametrize("kind", [FewInodes, FewInodesToRun])
    def test_no_more_files_refuses_new_jobs_and_costs_no_outcome(self, kind: type[FewInodes]) -> None:
        daemon = kind()
        try:
            daemon.start()
            started, error = until_refused(daemon, 60)
            assert len(started) >= 3 and "space" in str(error)
            filler = daemon.fill()
            let_them_end(daemon, started)
            shutil.rmtree(filler)
            with daemon.client() as client:
                for job_id in started:
                    client.remove(job_id)
            check_that_it_goes_on(daemon)
        finally:
            daemon.close()


class TestDescriptors:
    def test_no_more_descriptors_refuses_new_jobs_and_costs_no_outcome(self) -> None:
        daemon = FewDescriptors()
        try:
            daemon.start()
            started, error = until_refused(daemon, 96)
            assert len(started) >= 10 and "Too many open files" in str(error)
            let_them_end(daemon, started)
            check_that_it_goes_on(daemon)
        finally:
            daemon.close()


class TestCgroups:
    def test_no_more_cgroups_refuses_new_jobs_and_costs_no_outcome(self, own_daemon: Daemon) -> None:
        (own_daemon.cgroup / "jobs" / "cgroup.max.descendants").write_text("8")
        started, error = until_refused(own_daemon, 9)
        assert len(started) == 7  # and the user's
        assert "cgroup" in str(error)
        let_them_end(own_daemon, started)
        until_cleared(own_daemon)  # a cgroup counts until it is removed
        check_that_it_goes_on(own_daemon)
