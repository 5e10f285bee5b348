"""Reading a job's output: its log and the index beside it (workerd/init/joblog.c).

The log holds the bytes of both streams as they came; its offsets never change. The
index is a header of 64 bytes (magic, first byte kept, first record kept, bytes lost,
flags) and records of 32 (offset, length, time in ns, stream), little-endian; each
record is a run of bytes of one stream, and the last one grows in place. Data is in
the log before a record speaks of it, and times never go back.

The oldest bytes and records are punched out while a job writes on, so whatever was
read counts only if the header, read afterwards, still keeps it: that check lives
here. Plain preads on two descriptors; any number of readers, at any offset.

The daemon and workerctl both read through here: hence no imports but these, since
each would cost the short verbs its time.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from workerd.errors import WorkerError

    Run = tuple[int, int, int, int]
    """(offset, end, stream, time in ns)"""

STDOUT = 1
STDERR = 2
MAGIC = b"WKIDX001"
HEADER = struct.Struct("<8sQQQQ24x")
RECORD = struct.Struct("<QQQII")
COMPLETE = 1
RECORDS_AT_ONCE = 8192
WINDOW = 1 << 20
"""bytes of log read at once where they are told apart by stream"""
MOST_RECORDS = 1 << 16
"""records that one `read_piece` looks at: what bounds its time"""


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


class Extent:
    """What of the output there is at one moment, as offsets into the log."""

    __slots__ = ("complete", "end", "lost", "start")

    def __init__(self, start: int, end: int, lost: int, *, complete: bool) -> None:
        self.start = start
        self.end = end
        self.lost = lost
        """bytes that the log could not take"""
        self.complete = complete
        """PID 1 has drained the pipes: nothing will come after `end`"""


def _damaged() -> WorkerError:
    from workerd.errors import WorkerError

    return WorkerError("the index of this job's output is damaged, or of another version")


def open_log(log_path: str, index_path: str) -> Log:
    """For reading; the caller's to close. Raises OSError."""
    log_fd = os.open(log_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Log(log_fd, os.open(index_path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        os.close(log_fd)
        raise


def extent_of(log_path: str, index_path: str) -> Extent | None:
    """None where there is no output, or none that can be read."""
    from workerd.errors import WorkerError

    try:
        with _Measured(log_path, os.open(index_path, os.O_RDONLY | os.O_CLOEXEC)) as log:
            return log.extent()
    except (OSError, WorkerError):
        return None


def fields_of(extent: Extent | None) -> dict[str, int]:
    """A job's fields on its output; none where there is none."""
    if extent is None:
        return {}
    return {"output_start": extent.start, "output_end": extent.end, "output_lost": extent.lost}


class Log:
    """A log and its index, open for reading; it owns both descriptors. What reads the
    header raises WorkerError where that is damaged."""

    def __init__(self, log_fd: int, index_fd: int) -> None:
        self.log_fd = log_fd
        self.index_fd = index_fd

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        log_fd, self.log_fd = self.log_fd, -1
        index_fd, self.index_fd = self.index_fd, -1
        for fd in {log_fd, index_fd} - {-1}:
            os.close(fd)

    def header(self) -> Header:
        return Header(os.pread(self.index_fd, HEADER.size, 0))

    def extent(self) -> Extent:
        header = self.header()  # first: what is complete now has all its bytes below
        count, end = self.count(header.first_record), header.kept_from
        if count > header.first_record:
            offset, length, *_ = self._record(count - 1)
            # A log that a crash of the machine left shorter than its index ends there.
            end = max(end, min(offset + length, self._size()))
        return Extent(header.kept_from, end, header.lost, complete=header.complete)

    def _size(self) -> int:
        return os.fstat(self.log_fd).st_size

    def end(self) -> int:
        """The offset after the last byte that the index knows."""
        return self.extent().end

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        """Up to `length` bytes from `offset` on, and where they begin: later than
        asked for, and perhaps none, where bytes are gone."""
        data = os.pread(self.log_fd, length, offset)
        gone = self.header().kept_from - offset
        return (offset + gone, data[gone:]) if gone > 0 else (offset, data)

    def records(self, start: int) -> Iterator[Run]:
        """Each record from the one that holds `start` to the end of the index as it is now."""
        number, more = self.find(start), True
        while more:
            block, number, more = self.block(number)
            for offset, length, time, stream, _ in RECORD.iter_unpack(block):
                if length:
                    yield max(offset, start), offset + length, stream, time

    def runs(self, start: int) -> Iterator[Run]:
        """As `records`, but neighbours of one stream are joined."""
        begin = end = stream = time = 0
        for offset, stop, kind, when in self.records(start):
            if kind == stream and offset == end:
                end = stop
                continue
            if end > begin:
                yield begin, end, stream, time
            begin, end, stream, time = offset, stop, kind, when
        if end > begin:
            yield begin, end, stream, time

    def pieces(self, start: int, stop: int, stream: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """(offset, stream, bytes) from `start` to `stop` in order; of one stream
        where `stream` says so."""
        for offset, kind, _, data in self.cut(self.runs(start), start, stop, stream):
            yield offset, kind, data

    def timed_pieces(self, start: int, stop: int, stream: int | None = None) -> Iterator[tuple[int, int, int, bytes]]:
        """(offset, stream, time in ns, bytes): as `pieces`, but cut where times differ."""
        return self.cut(self.records(start), start, stop, stream)

    def cut(
        self, runs: Iterable[Run], start: int, stop: int, stream: int | None
    ) -> Iterator[tuple[int, int, int, bytes]]:
        """The bytes of runs; the log is read in windows, however short they are."""
        base, window = start, b""
        for begin, run_end, kind, time in runs:
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
                yield offset, kind, time, piece
                offset += len(piece)

    def offset_at(self, time: int) -> int:
        """Where that begins which came at `time` (ns since the epoch) or later."""
        first = self.header().first_record
        low, high = first, self.count(first)
        while low < high:
            middle = (low + high) // 2
            if self._record(middle)[2] < time:  # one punched out since is zeros: before
                low = middle + 1
            else:
                high = middle
        offset = self._record(low)[0] if low < self.count(first) else self.end()
        return max(offset, self.header().kept_from)

    def count(self, first: int) -> int:
        """How many records there have been; `first` is one that there is, if any."""
        count = max(0, os.fstat(self.index_fd).st_size - HEADER.size) // RECORD.size
        if count <= first or self._record(count - 1)[1]:
            return count
        low, high = first, count - 1  # a crash of the machine left zeros at the end
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._record(middle)[1] else (low, middle)
        return low

    def block(self, number: int) -> tuple[bytes, int, bool]:
        """(whole records from that one on, the number of the one after them, whether to
        look for more)."""
        block = os.pread(self.index_fd, RECORDS_AT_ONCE * RECORD.size, HEADER.size + number * RECORD.size)
        # Read after the block: what was punched out meanwhile is zeros in it.
        gone = max(0, self.header().first_record - number) * RECORD.size
        whole = len(block) - len(block) % RECORD.size
        return block[gone:whole], number + whole // RECORD.size, whole == RECORDS_AT_ONCE * RECORD.size

    def _record(self, number: int) -> tuple[int, ...]:
        """(offset, length, time, stream, 0) of one; zeros where there is none."""
        record = os.pread(self.index_fd, RECORD.size, HEADER.size + number * RECORD.size)
        return RECORD.unpack(record) if len(record) == RECORD.size else (0, 0, 0, 0, 0)

    def find(self, offset: int) -> int:
        """The number of the record that holds `offset`, or of the first one after it."""
        low = self.header().first_record
        high = self.count(low)
        while low < high:
            middle = (low + high) // 2
            begin, length, *_ = self._record(middle)
            if begin + length <= offset:  # one punched out since is zeros: before
                low = middle + 1
            else:
                high = middle
        return low


class _Measured(Log):
    """One that nobody reads: only its index is open."""

    def __init__(self, log_path: str, index_fd: int) -> None:
        super().__init__(-1, index_fd)
        self._path = log_path

    def _size(self) -> int:
        return os.stat(self._path).st_size


def read_piece(log: Log, offset: int, length: int, stream: int | None) -> tuple[bytes, int, int]:
    """(data, where it begins, the offset to ask for next) out of the `length` bytes of
    log from `offset` on, or from the first byte kept after it. All bytes of the range
    before `next` that are of `stream` (None: of both), in one piece: what is released
    meanwhile ends it early, as do too many records."""
    now = log.extent()
    offset = min(max(offset, now.start), now.end)
    stop = min(now.end, offset + length)
    if stream is None:
        begin, data = log.read(offset, stop - offset)
        return data, begin, begin + len(data)
    parts: list[bytes] = []
    begin = after = offset
    for number, (at, kind, _, data) in enumerate(log.timed_pieces(offset, stop)):
        if number == MOST_RECORDS or (at > after and parts):
            break
        if at > after:
            begin = at
        if kind == stream:
            parts.append(data)
        after = at + len(data)
    if after == offset:  # all of it was released meanwhile
        begin = after = stop
    return b"".join(parts), begin, after


def tail_offset(log: Log, lines: int, stream: int | None, start: int, stop: int) -> int:
    """Where the last `lines` lines before `stop` begin, of both streams together or of
    one; not before `start`."""
    first = max(start, log.header().kept_from)
    if lines == 0:
        return stop
    wanted, at_end = lines, True
    top, window = stop, max(1, WINDOW // 16)
    while top > first:
        bottom = max(first, top - window)
        for offset, data in _backwards(log, bottom, top, stream):
            # The newline that ends the last line begins no other one.
            place = len(data) - 1 if at_end and data.endswith(b"\n") else len(data)
            at_end = False
            while (place := data.rfind(b"\n", 0, place)) >= 0:
                wanted -= 1
                if not wanted:
                    return offset + place + 1
        top, window = bottom, min(WINDOW, 2 * window)
    return first


def _backwards(log: Log, bottom: int, top: int, stream: int | None) -> list[tuple[int, bytes]]:
    if stream is None:
        begin, data = log.read(bottom, top - bottom)
        return [(begin, data)] if data else []
    return [(offset, data) for offset, _, data in log.pieces(bottom, top, stream)][::-1]
