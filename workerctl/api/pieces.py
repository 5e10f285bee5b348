"""A job's output in pieces, as it is read from its log, whose descriptors the daemon gave.

What must hold: every byte that is kept comes once, in order, and the end is not told
before the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from workerd import fdpass
from workerd.errors import ConnectionFailed, InvalidParams
from workerd.output import STDERR, STDOUT, Log, tail_offset

StreamName = Literal["stdout", "stderr"]
NUMBERS: dict[str | None, int | None] = {None: None, "stdout": STDOUT, "stderr": STDERR}
TURN = 1 << 20
"""bytes of the log that are looked at before anything else gets its turn"""


class Piece(Struct, frozen=True):
    """What came on one stream in one moment."""

    stream: StreamName
    time: int
    """when it came; microseconds since the epoch"""
    offset: int
    """where in the log it begins"""
    data: bytes
    gone: int = 0
    """bytes just before it that were released before they could be read (max_output)"""

    @property
    def end(self) -> int:
        """Where to go on: `stream(job, start=piece.end)`."""
        return self.offset + len(self.data)


class Reader:
    """From `start` on, both streams or one; owns the log."""

    def __init__(self, log: Log, start: int, stream: StreamName | None, tail: int | None) -> None:
        if stream not in NUMBERS:
            raise InvalidParams(f"stream={stream!r}: choose 'stdout', 'stderr' or None for both", field="stream")
        self._log = log
        self._stream = NUMBERS[stream]
        self.offset = start
        """all before it was given out, or is not wanted"""
        self._known = start
        """from where on what is missing is told as `gone`"""
        self._gone = 0
        self.complete = False
        if tail is not None:
            self.offset = self._known = tail_offset(log, tail, self._stream, start, log.end())

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def turn(self) -> Iterator[Piece]:
        """What there is now, TURN bytes of log at most. Afterwards `complete` says whether
        that was the end of a log that grows no more."""
        now = self._log.extent()
        start = max(self.offset, now.start)
        end = min(now.end, start + TURN)
        for begin, kind, when, data in self._log.timed_pieces(start, end):
            self._gone += max(0, begin - self._known)
            self.offset = self._known = begin + len(data)
            if self._stream in (None, kind):
                gone, self._gone = self._gone, 0
                yield Piece("stderr" if kind == STDERR else "stdout", when // 1000, begin, data, gone)
        self.offset = max(self.offset, end)
        self.complete = now.complete and end >= now.end

    def ended(self) -> bool:
        """After the daemon said that no more will come: whether all was given out."""
        return self.offset >= self._log.end()

    @property
    def behind(self) -> bool:
        """Whether there is more already."""
        return self.offset < self._log.end()


def newest(log: Log, stream: StreamName | None, most: int) -> tuple[bytes, bool]:
    """The last `most` bytes of what is kept of a stream (None: of both, as they came),
    and whether there had been more before them."""
    number = NUMBERS[stream]
    extent = log.extent()
    parts: deque[bytes] = deque()
    size, more = 0, extent.start > 0
    for _, _, data in log.pieces(extent.start, extent.end, number):
        parts.append(data)
        size += len(data)
        while size - len(parts[0]) >= most and len(parts) > 1:
            size -= len(parts.popleft())
            more = True
    found = b"".join(parts)
    return found[max(0, len(found) - most) :], more or len(found) > most


def log_of(fds: list[int]) -> Log:
    """The log that came with output.open. Raises ConnectionFailed where it did not."""
    if len(fds) != 2:
        fdpass.close_all(fds)
        raise ConnectionFailed(f"output.open gave {len(fds)} descriptors in place of 2")
    return Log(*fds)
