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

from workerctl import stdio, wakeup
from workerd.output import STDERR, STDOUT, Extent, Log

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


def stream_apart(connection: Connection, job_id: str, *, raw: bool = False) -> None:
    """The output of a job, live, stdout to stdout and stderr to stderr; made harmless
    where those are terminals, unless `raw`."""
    # Where both lead to the same place the log has them in order already.
    copy: Copy = copy_whole if os.path.sameopenfile(stdio.STDOUT, stdio.STDERR) else copy_apart
    painter = None
    if not raw and (stdio.is_terminal(stdio.STDOUT) or stdio.is_terminal(stdio.STDERR)):
        from workerctl.escape import Painter

        painter = Painter(colour=stdio.colour())
        copy = painted_apart(painter)
    with connection.open_log(job_id) as log:
        pump(connection, job_id, log, 0, copy)
    if painter is not None and stdio.is_terminal(stdio.STDOUT):
        stdio.put(painter.finish())


def bring(log: Log, start: int, copy: Copy, gaps: Gaps, now: Extent, until: int | None = None) -> int:
    """What the log has `now` from `start` on, before `until` (ns since the epoch); where
    that ends."""
    if now.start > start:
        gaps.add(now.start - start)
    end = now.end if until is None else log.offset_at(until)
    return copy(log, max(start, now.start), end, gaps)


def pump(connection: Connection, job_id: str, log: Log, start: int, copy: Copy, until: int | None = None) -> None:
    """Copies from `start` until the job's output is complete, or the time `until` has come."""
    wakeup.begin()
    offset, gaps = start, Gaps()
    while True:
        over = until is not None and time.time_ns() >= until  # read first, as the extent
        now = log.extent()
        offset = bring(log, offset, copy, gaps, now, until)
        if now.complete or over:
            break
        params = {"id": job_id, "offset": offset}
        if until is not None:
            params["timeout"] = max(0, until - time.time_ns()) // 1000 + 1
        answer = connection.call_patiently("output.wait", params)
        if answer["finished"] and offset >= log.end():
            break
        if answer["finished"] and until is not None and offset >= log.offset_at(until):
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


def painted_apart(painter: Painter) -> Copy:
    """A copy of each stream to its own descriptor, painted where that is a terminal."""
    terminals = {fd for fd in (stdio.STDOUT, stdio.STDERR) if stdio.is_terminal(fd)}

    def copy(log: Log, start: int, end: int, gaps: Gaps) -> int:
        offset = start
        for begin, stream, data in log.pieces(start, end):
            if begin > offset:
                gaps.add(begin - offset)
            fd = STDERR if stream == STDERR else STDOUT
            if fd in terminals:
                text = painter.paint(stream, data)
                stdio.write_all(fd, text.encode(stdio.encoding(), "backslashreplace"))
            else:
                stdio.write_all(fd, data)
            offset = begin + len(data)
        return offset

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


def lined(show: Callable[[int, int, bytes], bytes], stream: int | None) -> tuple[Copy, Callable[[], None]]:
    """A copy of whole lines to stdout, each as `show` (stream, time, line) has it; and
    what brings out those that never ended."""
    from workerctl.lines import Lines

    lines = Lines()

    def copy(log: Log, start: int, end: int, gaps: Gaps) -> int:
        parts, size, offset = [], 0, start
        for begin, kind, when, data in log.timed_pieces(start, end, stream):
            if begin > offset and stream is None:
                gaps.add(begin - offset)
            offset = begin + len(data)
            for line in lines.feed(kind, when, data):
                parts.append(show(*line))
                size += len(parts[-1])
            if size >= CHUNK:
                stdio.write_all(stdio.STDOUT, b"".join(parts))
                parts, size = [], 0
        stdio.write_all(stdio.STDOUT, b"".join(parts))
        return max(offset, end)

    return copy, lambda: stdio.write_all(stdio.STDOUT, b"".join(show(*line) for line in lines.rest()))
