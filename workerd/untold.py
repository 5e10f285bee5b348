"""A PID 1 whose first stage was killed before it could tell of it (SIGKILL from root, or for
want of memory): it waits for a word that cannot come, and nobody knows its pid."""

from __future__ import annotations

import asyncio
import os
import signal

from workerd import procfs


def kill(cgroup_fd: int) -> None:
    """The one of the launch into that cgroup, whose first stage has ended without a word, if there
    is one. With it the status ends."""
    for pid in _find(cgroup_fd):
        os.kill(pid, signal.SIGKILL)


async def collect(cgroup_fd: int) -> None:
    """It has nothing left to do but to exit."""
    for pid in _find(cgroup_fd):
        await asyncio.to_thread(os.waitpid, pid, procfs.WALL)


def _find(cgroup_fd: int) -> list[int]:
    """No other child of ours is in the cgroup before the command runs."""
    return procfs.children_in(os.path.basename(procfs.path_of_fd(cgroup_fd)))
