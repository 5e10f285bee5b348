"""What a job's end is judged by (workerd/evidence.py), from files as the kernel and PID 1 write them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from workerd import evidence, exitrecord
from workerd.blockdev import Caller
from workerd.cgroupfiles import CgroupNode
from workerd.cgrouplimits import Context
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles

STARTED, ENDED = 3, 1
JOB = "aaaaaaaaaa"


@pytest.fixture
def cgroup(tmp_path: Path) -> JobCgroup:
    """With one process in it."""
    path = tmp_path / "cgroup"
    path.mkdir()
    texts = {
        "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\n",
        "pids.current": "1\n",
        "pids.peak": "4\n",
        "pids.events": "max 0\n",
    }
    for name, text in texts.items():
        (path / name).write_text(text)
    return JobCgroup(CgroupNode(path), Context(frozenset({"pids"}), path, Caller(0)))


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    made = JobFiles(str(tmp_path), str(tmp_path / "run"), JOB)
    Path(made.runtime).mkdir(parents=True)
    return made


def write_record(files: JobFiles, kind: int) -> None:
    body = struct.pack("<8sIIIIQQQQQ24s160s", b"WKEXIT01", kind, 1, 3, 0, 1, 2, 1, 0, 0, b"", b"")
    Path(files.exit).write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))


def test_a_pid_1_that_is_about_to_end_is_none_of_its_processes(cgroup: JobCgroup) -> None:
    with cgroup:
        assert cgroup.usage().pids_current == 1
        usage = evidence.take_account(cgroup).usage
        assert usage is not None
        assert (usage.pids_current, usage.pids_peak, usage.cpu_usec) == (0, 4, 5000)


def test_is_final_once_the_record_says_how_the_command_ended(cgroup: JobCgroup, files: JobFiles) -> None:
    with cgroup:
        assert not evidence.gather(cgroup, files).is_final
        write_record(files, STARTED)
        assert not evidence.gather(cgroup, files).is_final
        write_record(files, ENDED)
        found = evidence.gather(cgroup, files)
        assert found.is_final
        assert isinstance(found.record, exitrecord.Ended)
        assert found.record.exit_code == 3


def test_of_a_cgroup_that_is_gone_is_what_was_taken_before(files: JobFiles) -> None:
    taken = evidence.Account(None, oom_killed=True)
    assert evidence.gather(None, files, taken).account is taken
    assert evidence.gather(None, files).account == evidence.Account(None, oom_killed=False)
