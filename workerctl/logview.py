"""Reading a job's log and its index, which worker-init writes beside it.

The index is a header of 64 bytes and records of 32, little-endian; each record is
a run of bytes of one stream, and the last one grows in place. The oldest bytes
and records are punched out while a job writes on, so whatever was read counts
only if the header, read afterwards, still keeps it: that check lives here. Plain
preads on two descriptors; any number of readers, at any offset.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.errors import WorkerError

STDOUT = 1
STDERR = 2
MAGIC = b"WKIDX001"
HEADER = struct.Struct("<8sQQQQ24x")
RECORD = struct.Struct("<QQQII")
PLACE = struct.Struct("<QQ")
COMPLETE = 1
RECORDS_AT_ONCE = 8192
WINDOW = 1 << 20
"""bytes of log read at once where they are told apart by stream"""


class Header:
    """What the index says of the whole log."""

    __slots__ = ("complete", "first_record", "kept_from", "lost")

    def __init__(self, data: bytes) -> None:
        if len(data) < HEADER.size:  # the job has not begun, or never did
            data = HEADER.pack(MAGIC, 0, 0, 0, 0)
        fields: tuple[bytes, int, int, int, int] = HEADER.unpack(data)
        magic, self.kept_from, self.first_record, self.lost, flags = fields
        if magic != MAGIC:
            raise _damaged()
        self.complete = bool(flags & COMPLETE)


def _damaged() -> WorkerError:
    from workerd.errors import WorkerError

    return WorkerError("the index of this job's output is damaged, or of another version")


class Log:
    """A log and its index, open for reading; it owns both descriptors."""

    def __init__(self, log_fd: int, index_fd: int) -> None:
        self.log_fd = log_fd
        self.index_fd = index_fd

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while (fd := max(self.log_fd, self.index_fd)) >= 0:
            os.close(fd)
            if fd == self.log_fd:
                self.log_fd = -1
            else:
                self.index_fd = -1

    def header(self) -> Header:
        return Header(os.pread(self.index_fd, HEADER.size, 0))

    def end(self) -> int:
        """The offset after the last byte that the index knows."""
        count = self._count()
        if count <= self.header().first_record:
            return self.header().kept_from
        return sum(self._place(count - 1))

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        """Up to `length` bytes from `offset` on, and where they begin: later than
        asked for, and perhaps none, where bytes are gone."""
        data = os.pread(self.log_fd, length, offset)
        gone = self.header().kept_from - offset
        return (offset + gone, data[gone:]) if gone > 0 else (offset, data)

    def runs(self, start: int) -> Iterator[tuple[int, int, int]]:
        """(offset, end, stream) from `start` to the end of the index as it is now;
        neighbours of one stream are joined."""
        begin = end = stream = 0
        for offset, length, _, kind, _ in self._records(start):
            if kind == stream and offset == end:
                end += length
                continue
            if end > begin:
                yield begin, end, stream
            begin, end, stream = max(offset, start), offset + length, kind
        if end > begin:
            yield begin, end, stream

    def pieces(self, start: int, stop: int, stream: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """(offset, stream, bytes) from `start` to `stop` in order; of one stream
        where `stream` says so. The log is read in windows, however short the runs."""
        base, window = start, b""
        for begin, run_end, kind in self.runs(start):
            if begin >= stop:
                return
            offset, end = begin, min(run_end, stop)
            while offset < end and stream in (None, kind):
                if not base <= offset < base + len(window):
                    base, window = self.read(offset, min(WINDOW, stop - offset))
                    if base == offset and not window:
                        return  # the log is shorter than its index says
                    offset = base
                    continue
                piece = window[offset - base : end - base]
                yield offset, kind, piece
                offset += len(piece)

    def _count(self) -> int:
        return max(0, os.fstat(self.index_fd).st_size - HEADER.size) // RECORD.size

    def _place(self, number: int) -> tuple[int, int]:
        """Offset and length of one record's bytes."""
        record = os.pread(self.index_fd, RECORD.size, HEADER.size + number * RECORD.size)
        offset, length = PLACE.unpack_from(record)
        return offset, length

    def _records(self, start: int) -> Iterator[tuple[int, ...]]:
        number = self._find(start)
        while True:
            place = HEADER.size + number * RECORD.size
            block = os.pread(self.index_fd, RECORDS_AT_ONCE * RECORD.size, place)
            # Read after the block: what was punched out meanwhile is zeros in it.
            gone = max(0, self.header().first_record - number) * RECORD.size
            whole = len(block) - len(block) % RECORD.size
            yield from RECORD.iter_unpack(block[gone:whole])
            number += whole // RECORD.size
            if whole < RECORDS_AT_ONCE * RECORD.size:
                return

    def _find(self, offset: int) -> int:
        """The number of the record that holds `offset`, or of the first one after it."""
        low, high = self.header().first_record, self._count()
        while low < high:
            middle = (low + high) // 2
            # A record punched out since the header was read is zeros: it lies before.
            if sum(self._place(middle)) <= offset:
                low = middle + 1
            else:
                high = middle
        return low


def tail_offset(log: Log, lines: int, stream: int | None = None) -> int:
    """Where the last `lines` lines begin, of both streams together or of one."""
    first, end = log.header().kept_from, log.end()
    if lines == 0:
        return end
    wanted, at_end = lines, True
    top = end
    while top > first:
        bottom = max(first, top - WINDOW)
        for offset, _, data in reversed(list(log.pieces(bottom, top, stream))):
            # The newline that ends the last line begins no other one.
            place = len(data) - 1 if at_end and data.endswith(b"\n") else len(data)
            at_end = False
            while (place := data.rfind(b"\n", 0, place)) >= 0:
                wanted -= 1
                if not wanted:
                    return offset + place + 1
        top = bottom
    return first
