"""Bringing a job's output to our own descriptors: what is there, and what comes.

The bytes are read from the log itself, whose descriptor the daemon hands over;
the daemon is asked only to say when there is more. What must hold: every byte
once, in order, on the right descriptor, and no end before the last one.

A plain loop of read and write is as fast as `cat` here, into pipes and files, and
unlike sendfile it never lets out bytes that were released while being read.
"""

from __future__ import annotations

import os
import time

from workerctl import stdio
from workerd.output import STDERR, STDOUT, Log

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from workerctl.escape import Painter
    from workerctl.wire import Connection

    Copy = Callable[[Log, int, int, "Gaps"], int]
    """Brings out what is kept from one offset to another; where it got to."""

CHUNK = 1 << 18


class Gaps:
    """Bytes that were gone before they could be read: told at once, but not every time."""

    EVERY = 1.0
    """seconds between two notices"""

    def __init__(self) -> None:
        self._untold = 0
        self._told_at = float("-inf")

    def add(self, size: int) -> None:
        self._untold += size
        if time.monotonic() >= self._told_at + self.EVERY:
            self.tell()

    def tell(self) -> None:
        if self._untold:
            stdio.note(f"{self._untold} bytes of output are gone: the job wrote more than is kept (--max-output)")
            self._untold, self._told_at = 0, time.monotonic()


def open_log(connection: Connection, job_id: str) -> Log:
    result, fds = connection.call_with_fds("output.open", {"id": job_id}, 2)
    if len(fds) != 2:
        from workerd import errors, fdpass

        fdpass.close_all(fds)
        raise errors.ConnectionFailed(f"workerd sent {len(fds)} descriptors in place of 2 for {result.get('id')}")
    return Log(*fds)


def stream_apart(connection: Connection, job_id: str) -> None:
    """The output of a job, live, stdout to stdout and stderr to stderr."""
    # Where both lead to the same place the log has them in order already.
    copy = copy_whole if os.path.sameopenfile(stdio.STDOUT, stdio.STDERR) else copy_apart
    with open_log(connection, job_id) as log:
        pump(connection, job_id, log, 0, copy)


def bring(log: Log, start: int, copy: Copy, gaps: Gaps) -> int:
    """What the log has now from `start` on; where that ends."""
    kept = log.header().kept_from
    if kept > start:
        gaps.add(kept - start)
    return copy(log, max(start, kept), log.end(), gaps)


def pump(connection: Connection, job_id: str, log: Log, start: int, copy: Copy) -> None:
    """Copies from `start` until the job's output is complete."""
    offset, gaps = start, Gaps()
    while True:
        complete = log.header().complete  # read first: what is complete now has all its bytes below
        offset = bring(log, offset, copy, gaps)
        if complete:
            break
        answer = connection.call_patiently("output.wait", {"id": job_id, "offset": offset})
        if answer["finished"] and offset >= max(answer["end"], log.end()):
            break
    gaps.tell()


def copy_whole(log: Log, start: int, end: int, gaps: Gaps) -> int:
    """Both streams to stdout, as they came."""
    offset = start
    while offset < end:
        begin, data = log.read(offset, min(CHUNK, end - offset))
        if begin > offset:
            gaps.add(begin - offset)
        elif not data:
            return offset  # the log is shorter than its index says
        stdio.write_all(stdio.STDOUT, data)
        offset = begin + len(data)
    return offset


def copy_apart(log: Log, start: int, end: int, gaps: Gaps) -> int:
    """Each stream to its own descriptor."""
    waiting: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    size, offset = 0, start
    for begin, stream, data in log.pieces(start, end):
        if begin > offset:
            gaps.add(begin - offset)
        waiting[STDERR if stream == STDERR else STDOUT].append(data)
        size += len(data)
        offset = begin + len(data)
        if size >= CHUNK:
            _flush(waiting)
            size = 0
    _flush(waiting)
    return offset


def _flush(waiting: dict[int, list[bytes]]) -> None:
    for stream, parts in waiting.items():
        stdio.write_all(stream, b"".join(parts))
        parts.clear()


def only(stream: int) -> Copy:
    """A copy of one stream to stdout."""

    def copy(log: Log, start: int, end: int, gaps: Gaps) -> int:
        parts, size = [], 0
        for _, _, data in log.pieces(start, end, stream):
            parts.append(data)
            size += len(data)
            if size >= CHUNK:
                stdio.write_all(stdio.STDOUT, b"".join(parts))
                parts, size = [], 0
        stdio.write_all(stdio.STDOUT, b"".join(parts))
        return max(start, end)

    return copy


def painted(painter: Painter, stream: int | None) -> Copy:
    """A copy to a terminal."""

    def copy(log: Log, start: int, end: int, gaps: Gaps) -> int:
        offset = start
        for begin, kind, data in log.pieces(start, end, stream):
            if begin > offset and stream is None:
                gaps.add(begin - offset)
            stdio.put(painter.paint(kind, data))
            offset = begin + len(data)
        return max(offset, end)

    return copy
