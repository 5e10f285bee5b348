"""Our standard input for a job (-i): handed over as it is, unless it is a terminal.

A terminal stays ours: a job that had it could go on reading what is typed after
workerctl has gone, and change how it works. What is typed is copied into a pipe, line
by line, as the terminal gives it.
"""

from __future__ import annotations

import os

from workerctl import stdio, threads
from workerctl.options import UsageError

PIECE = 1 << 16


def own_stdin(*, stays: bool) -> int | None:
    """The descriptor to hand over; None where there is nothing to read. `stays`: whether
    workerctl is there as long as the job, to copy what is typed."""
    if _write_only():
        return None  # closed (stdio.keep_three_open), or no input
    if not stdio.is_terminal(stdio.STDIN):
        return stdio.STDIN
    if not stays:
        raise UsageError("-i from a terminal: add --wait or -f to type to the job, or -t to be at its terminal")
    return _copied()


def _write_only() -> bool:
    try:
        import fcntl
    except ImportError:  # Windows; there a read finds it
        return False
    return fcntl.fcntl(stdio.STDIN, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY


def _copied() -> int:
    """The reading end of a pipe that a thread fills with what is typed."""
    read_end, write_end = os.pipe()
    threads.begin(_copy, write_end)
    return read_end


def _copy(write_end: int) -> None:
    try:
        while data := os.read(stdio.STDIN, PIECE):
            stdio.write_all(write_end, data)
    except OSError:
        return  # the job does not read any more, or the terminal is gone
    finally:
        os.close(write_end)
