"""The index of a job's output over several tries (workerd.restarting, init/joblog.c).

Each try's PID 1 goes on where the index ends. A flag in its header has PID 1 leave it
to the daemon to say that the output is complete, since only the daemon knows whether
another try follows.
"""

from __future__ import annotations

import os

from workerd.output import COMPLETE, HEADER

MORE = 2


def begin(index_fd: int) -> None:
    """Before the first try, and harmless before any other."""
    _flag(index_fd, MORE)


def end(path: str) -> None:
    """After the last one. Without it the output counts as complete all the same, as that
    of every finished job does; whoever reads the index alone waits to be told."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _flag(fd, COMPLETE)
    finally:
        os.close(fd)


def _flag(fd: int, flag: int) -> None:
    """Set it, beside what is set."""
    header = os.pread(fd, HEADER.size, 0)
    if len(header) == HEADER.size:
        magic, start, first, lost, flags = HEADER.unpack(header)
        os.pwrite(fd, HEADER.pack(magic, start, first, lost, flags | flag), 0)
