"""What /proc says of a process, whatever that calls itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from workerd import procfs

NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""
LONG = "x" * 10_000


@pytest.fixture(
    params=[b"plain", b"a) R (b", b"x) D 1 2 3", b"\xff\xfe", b"\rNSpid:\t2\t1", b"\nNSpid:\t2\t1"], ids=repr
)
def named(request: pytest.FixtureRequest) -> Iterator[int]:
    """The pid of a process that has this name; it waits."""
    command = [sys.executable, "-c", NAMED, request.param.hex(), LONG]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def test_a_name_is_taken_for_nothing_else(named: int) -> None:
    ours = procfs.start_ticks(os.getpid())
    theirs = procfs.start_ticks(named)
    assert ours is not None and theirs is not None and ours <= theirs <= ours + 1e6
    assert not procfs.waits_in_kernel(named)
    assert not procfs.is_namespace_init(named)
    gid, others = procfs.groups(named)
    assert (gid, sorted(others)) == (os.getgid(), sorted(os.getgroups()))


def test_all_arguments_are_read(named: int) -> None:
    assert procfs.command_line(named)[1:3] == ("-c", NAMED)
    assert procfs.command_line(named)[4] == LONG


def test_nothing_is_said_of_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    pid = process.pid
    assert procfs.start_ticks(pid) is None
    assert not procfs.waits_in_kernel(pid) and not procfs.is_namespace_init(pid)
    assert (procfs.command_line(pid), procfs.groups(pid)) == ((), (-1, ()))
