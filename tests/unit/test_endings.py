"""Who says that a job is over, as the kernel tells it (workerd/endings.py)."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from workerd.endings import Endings

SAY = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).send(b'.')"


def run(program: str, fd: int) -> int:
    """The pid that it had."""
    child = subprocess.Popen([sys.executable, "-c", program, str(fd)], pass_fds=(fd,))
    assert child.wait(30) == 0
    return child.pid


def heard_from(programs: Sequence[str]) -> tuple[list[int], list[int]]:
    """The pids of Python programs that were given the far end, and what was told of them."""

    async def hear() -> tuple[list[int], list[int]]:
        told: list[int] = []
        endings = Endings(asyncio.get_running_loop(), told.append)
        try:
            pids = [await asyncio.to_thread(run, program, endings.far_end) for program in programs]
            for _ in range(len(programs) + 1):
                await asyncio.sleep(0)
            return pids, told
        finally:
            endings.close()

    return asyncio.run(hear())


def test_each_is_told_by_its_pid() -> None:
    pids, told = heard_from([SAY, SAY, SAY])
    assert told == pids


def test_who_is_silent_is_not_told() -> None:
    pids, told = heard_from(["pass", SAY])
    assert told == pids[1:]


def test_who_speaks_to_a_daemon_that_has_gone_is_refused() -> None:
    async def leave() -> None:
        endings = Endings(asyncio.get_running_loop(), lambda pid: None)
        far_end = socket.socket(fileno=os.dup(endings.far_end))
        endings.close()
        endings.close()
        with far_end, pytest.raises(BrokenPipeError):
            far_end.send(b".")

    asyncio.run(leave())
