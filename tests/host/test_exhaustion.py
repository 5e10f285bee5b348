"""Things run out: what comes new is refused with the reason, what runs keeps its outcome."""

from __future__ import annotations

import os
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
        assert not list(small.cgroup.glob("jobs/uid-*/job-*"))
