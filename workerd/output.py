"""A job's output on disk: the log and its index (written by workerd/init/output.c).

The log holds the bytes of both streams as they came; its offsets never change, and
what lies before `start` has been released. The index is a 64-byte header (magic,
first byte kept, first record kept, bytes lost, flags), then records of 32 bytes
(offset, length, time in ns, stream). Data is in the log before a record speaks of it.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

STDOUT, STDERR = 1, 2

_HEADER = struct.Struct("<8sQQQQ24x")
_RECORD = struct.Struct("<QQQII")
_COMPLETE = 1
_CHUNK = 4096
"""records looked at in one read"""


class Extent(NamedTuple):
    """What of the output there is now, as offsets into the log."""

    start: int
    end: int
    complete: bool
    """PID 1 has drained the pipes: nothing will come after `end`"""
    lost: int
    """bytes that the log could not take"""


class Record(NamedTuple):
    offset: int
    length: int
    time: int
    """ns since the epoch"""
    stream: int


def extent(index_fd: int) -> Extent:
    """An index that is empty or damaged speaks of no output."""
    header = os.pread(index_fd, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return Extent(0, 0, False, 0)
    _, start, _, lost, flags = _HEADER.unpack(header)
    count = (os.fstat(index_fd).st_size - _HEADER.size) // _RECORD.size
    end = start
    if count > 0:
        offset, length, *_ = _RECORD.unpack(os.pread(index_fd, _RECORD.size, _place(count - 1)))
        end = max(start, offset + length)
    return Extent(start, end, bool(flags & _COMPLETE), lost)


def read(log_fd: int, index_fd: int, offset: int, length: int, stream: int | None) -> tuple[bytes, int, int]:
    """(data, where it begins, the offset to ask for next): at most `length` bytes from
    `offset` on, or from the first byte kept after it; one stream only if asked for."""
    now = extent(index_fd)
    offset = min(max(offset, now.start), now.end)
    stop = min(now.end, offset + length)
    if stream is None:
        data = os.pread(log_fd, stop - offset, offset)
        return data, offset, offset + len(data)
    pieces = []
    for record in _records_from(index_fd, offset):
        low, high = max(record.offset, offset), min(record.offset + record.length, stop)
        if low >= stop:
            break
        if record.stream == stream:
            pieces.append(os.pread(log_fd, high - low, low))
    return b"".join(pieces), offset, stop


def _place(number: int) -> int:
    return _HEADER.size + number * _RECORD.size


def _record(index_fd: int, number: int) -> Record:
    offset, length, time, stream, _ = _RECORD.unpack(os.pread(index_fd, _RECORD.size, _place(number)))
    return Record(offset, length, time, stream)


def _records_from(index_fd: int, offset: int) -> list[Record]:
    """The records from the one that holds `offset` on, up to one chunk of them."""
    first = _HEADER.unpack(os.pread(index_fd, _HEADER.size, 0))[2]
    low, high = first, (os.fstat(index_fd).st_size - _HEADER.size) // _RECORD.size
    high_end = high
    while low < high:
        middle = (low + high) // 2
        record = _record(index_fd, middle)
        if record.offset + record.length > offset:
            high = middle
        else:
            low = middle + 1
    data = os.pread(index_fd, min(_CHUNK, high_end - low) * _RECORD.size, _place(low))
    whole = len(data) - len(data) % _RECORD.size
    return [Record(*fields[:4]) for fields in _RECORD.iter_unpack(data[:whole])]
