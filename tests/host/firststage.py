"""The first stage of worker-init that stays, as tests find it, hold it up and end it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.host.daemon import Daemon

NAMESPACES = ("net", "ipc", "uts", "pid", "mnt", "cgroup")


def zygotes(daemon: Daemon) -> list[int]:
    """pids; ended ones that are not reaped have no words left."""
    assert daemon.process is not None
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if words(int(child)) == [b"worker-init", b"zygote"]]


def words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []


def zygote(daemon: Daemon) -> int:
    (pid,) = zygotes(daemon)
    return pid


def end(pid: int) -> None:
    """Kill it; returns once it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_for(pidfd)
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Nothing that it was handed would start."""
    pid = zygote(daemon)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        end(pid)


def wait_for(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 30)[0], "it did not end"


def namespaces(pid: int) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
