"""A job's files stay open while somebody asks about it, and not for longer."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from workerd import heldfiles
from workerd.cgroupfiles import CgroupNode
from workerd.cgrouplimits import Context
from workerd.heldfiles import HeldFiles
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles, open_output

FILES = 3
"""cpu.stat, the log and its index: these directories hold no more"""


class NoControllers:
    available: frozenset[str] = frozenset()


class JobOfFiles:
    """What stands for a cgroup is a directory with a file of its figures."""

    def __init__(self, base: Path, job_id: str) -> None:
        self.id = job_id
        self.directory = base / f"job-{job_id}"
        self.directory.mkdir()
        self.uses(1)
        self.cgroup = JobCgroup(CgroupNode(self.directory), cast(Context, NoControllers()))
        self.files = JobFiles(str(base), str(base / "run"), job_id)
        open_output(self.files).close()

    def uses(self, microseconds: int) -> None:
        (self.directory / "cpu.stat").write_text(f"usage_usec {microseconds}\n")

    def read(self, held: HeldFiles, jobs: int = 1) -> int | None:
        usage, extent = held.read(self.id, self.cgroup, self.files, jobs)
        assert extent is not None and extent.end == 0
        return usage.cpu_usec


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[JobOfFiles]]:
    (tmp_path / "jobs").mkdir()
    made = [JobOfFiles(tmp_path, f"{number}") for number in range(4)]
    yield made
    for job in made:
        job.cgroup.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def with_held(use: Callable[[HeldFiles], Awaitable[None]]) -> None:
    async def run() -> None:
        before = open_descriptors()
        held = HeldFiles(asyncio.get_running_loop())
        await use(held)
        held.close()
        assert open_descriptors() == before

    asyncio.run(run())


def test_figures_are_those_of_now_out_of_files_opened_once(jobs: list[JobOfFiles]) -> None:
    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        assert jobs[0].read(held) == 1
        assert open_descriptors() == before + FILES
        jobs[0].uses(2)
        assert jobs[0].read(held) == 2
        assert open_descriptors() == before + FILES

    with_held(use)


def test_another_try_has_files_of_its_own(jobs: list[JobOfFiles]) -> None:
    async def use(held: HeldFiles) -> None:
        jobs[0].read(held)
        jobs[1].uses(7)
        assert held.read("0", jobs[1].cgroup, jobs[0].files, 1)[0].cpu_usec == 7

    with_held(use)


def test_a_forgotten_job_holds_nothing(jobs: list[JobOfFiles]) -> None:
    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        jobs[0].read(held)
        held.forget("0")
        held.forget("0")
        assert open_descriptors() == before

    with_held(use)


def test_whom_nobody_asks_about_holds_nothing(jobs: list[JobOfFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldfiles, "_CLOSED_AT_ONCE", 2)

    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        for job in jobs:
            job.read(held)
        held._close_idle()  # as after a second
        assert open_descriptors() == before + 4 * FILES
        jobs[3].read(held)
        held._close_idle()
        assert open_descriptors() == before + 2 * FILES
        held._close_idle()
        assert open_descriptors() == before + FILES
        held._close_idle()
        assert open_descriptors() == before
        assert held._timer is None, "it wakes the daemon up for nothing"

    with_held(use)


def test_descriptors_are_left_for_jobs(jobs: list[JobOfFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))

    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        for job in jobs:
            assert job.read(held, 1) == 1  # of 20 ten are the jobs', two are taken, 6.4 may be held
        assert open_descriptors() == before + 3 * FILES
        for job in jobs:
            assert job.read(held, 4) == 1  # 1.6
        assert open_descriptors() == before + FILES

    with_held(use)


def test_what_is_opened_later_counts_as_well(jobs: list[JobOfFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))

    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        for job in jobs:
            job.files.remove_output()
            assert held.read(job.id, job.cgroup, job.files, 1)[1] is None
        assert open_descriptors() == before + 4
        for job in jobs:
            open_output(job.files).close()
            job.read(held)
        assert open_descriptors() == before + 3 * FILES  # as where they were there at first

    with_held(use)


def test_many_jobs_are_read_all_the_same(jobs: list[JobOfFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldfiles, "_MOST", 2)

    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        assert [job.read(held) for job in jobs] == [1] * 4
        assert open_descriptors() == before + 2 * FILES

    with_held(use)


def test_a_cgroup_that_is_closed_holds_nothing(jobs: list[JobOfFiles]) -> None:
    jobs[0].cgroup.close()

    async def use(held: HeldFiles) -> None:
        before = open_descriptors()
        with pytest.raises(OSError, match="Bad file descriptor"):
            jobs[0].read(held)
        assert open_descriptors() == before

    with_held(use)
