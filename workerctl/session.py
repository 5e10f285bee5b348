"""A person at a job's terminal: what is typed goes in, what it shows comes out.

What it shows is the job's log, followed as by `out -f`; what is typed goes into a
descriptor of the daemon's giving. Neither needs the daemon from then on: one that
restarts is asked again, and only new output waits for it meanwhile.

The job's terminal has one size: that of the client that last came, was resized, or
began to type.
"""

from __future__ import annotations

import os
import select
import time

from workerctl import stdio
from workerctl.detachkeys import HELD_SECONDS, Filter
from workerctl.rawterm import RawTerminal
from workerctl.termmodes import Modes
from workerctl.wire import Connection
from workerd.output import tail_offset

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerd.output import Log

STDIN = 0
PIECE = 1 << 14
"""bytes shown before the keys are looked at again"""
TOO_FAR_BEHIND = 1 << 20
CATCH_UP = 1 << 16
"""a terminal that is that far behind sees the end instead; the log has it all"""
RECENT = 1 << 18
"""bytes of output that tell which modes a terminal should be in"""
MOST_TYPED = 1 << 16
"""bytes that wait for the job to read them; more of them wait in our terminal"""
STUCK = 5.0
"""seconds after which a job that reads nothing gets no more of them: what is typed is
dropped, with a bell, so that the detach keys are seen"""
QUIET = 1.0
"""seconds without typing after which the next key makes the size this client's again"""
PATIENCE, PAUSE = 20.0, 0.2
"""seconds without a daemon before its absence is an error; between two tries"""


class Session:
    """`typing` is None where the job has already ended; it and `log` stay the caller's."""

    def __init__(self, job_id: str, log: Log, typing: int | None, keys: bytes, terminal: RawTerminal) -> None:
        self._job_id = job_id
        self._log = log
        self._typing = typing
        self._filter = Filter(keys)
        self._terminal = terminal
        self.modes = Modes()
        self._offset = 0
        self._end = 0
        """up to where there is output, as last heard"""
        self._pending = b""
        self._taken_at = float("-inf")
        """when the job last read what was typed, or had read it all"""
        self._follow: Connection | None = None
        self._number = 0
        self._orders: Connection | None = None
        self._lost_since: float | None = None
        self._typed_at = float("-inf")
        self._released_at: float | None = None
        self._ended = False
        self._over = False
        """whether all was shown, to its end"""
        self._last = b"\n"
        """the last byte shown"""

    def leave(self) -> bytes:
        """Brings our terminal back to the usual, on a line of its own where the job goes on."""
        line = b"\r\n" if not self._over and self._last != b"\n" else b""
        return self.modes.leave() + line

    def recall(self) -> None:
        """For somebody who comes in the middle: the last screenful; or, where a program
        has the whole screen, its own redraw."""
        size = self._terminal.size()
        now = self._log.extent()
        _, recent = self._log.read(max(now.start, now.end - RECENT), RECENT)
        self.modes.feed(recent)
        self._offset = self._end = end = now.end
        if self.modes.full_screen:
            stdio.write_all(stdio.STDOUT, self.modes.enter() + b"\x1b[H\x1b[2J")
            self._resize({**size, "rows": max(1, size["rows"] - 1)})  # a change, for it to be told of
        else:
            start = tail_offset(self._log, size["rows"] - 1, None, max(0, end - CATCH_UP), end)
            begin, data = self._log.read(start, end - start)
            self._offset = begin + len(data)
            stdio.write_all(stdio.STDOUT, b"\x1b[0m" + data + self.modes.enter())
            self._last = data[-1:] or self._last

    def run(self) -> bool:
        """Until the job's output has ended (True), or the detach keys (False)."""
        self._resize(self._terminal.size())
        self._ask()
        while not self._filter.detached:
            ready = self._poll()
            if self._terminal.wakeup in ready:
                self._terminal.woken()
            if self._terminal.resized:
                self._terminal.resized = False
                self._resize(self._terminal.size())
            if STDIN in ready:
                self._type()
            self._release()
            self._flush()
            self._hear(ready)
            if self._ended and self._behind() <= 0:
                self._over = True
                return True
        return False

    def close(self) -> None:
        for connection in (self._follow, self._orders):
            if connection is not None:
                connection.close()

    # ── waiting ──

    def _poll(self) -> set[int]:
        poll = select.poll()
        if not self._patience():
            poll.register(STDIN, select.POLLIN)
        poll.register(self._terminal.wakeup, select.POLLIN)
        for connection in (self._follow, self._orders):
            if connection is not None:
                poll.register(connection, select.POLLIN)
        if self._pending and self._typing is not None:
            poll.register(self._typing, select.POLLOUT)
        return {fd for fd, _ in poll.poll(self._timeout())}

    def _timeout(self) -> float | None:
        """Milliseconds; None where there is nothing to do but to wait."""
        if self._behind() > 0:
            return 0
        times = [PAUSE] if self._follow is None else []
        if self._released_at is not None:
            times.append(max(0.0, self._released_at - time.monotonic()))
        if left := self._patience():
            times.append(left)
        return min(times) * 1000 if times else None

    # ── what it shows ──

    def _behind(self) -> int:
        return self._end - self._offset

    def _ask(self) -> None:
        """Have the daemon say when there is more; or try again in a moment."""
        from workerd.errors import ConnectionFailed

        try:
            if self._follow is None:
                self._follow = Connection()
            self._number = self._follow.ask("output.wait", {"id": self._job_id, "offset": self._offset})
        except ConnectionFailed as error:
            self._lose(error)

    def _hear(self, ready: set[int]) -> None:
        if self._orders is not None and self._orders.fileno() in ready:
            self._take_answer()
        if self._follow is None:
            self._ask()
        elif self._follow.fileno() in ready:
            self._told()
        self._show()

    def _told(self) -> None:
        from workerd.errors import ConnectionFailed, Unavailable

        assert self._follow is not None
        try:
            answer = self._follow.take(self._number)
        except (ConnectionFailed, Unavailable) as error:
            self._lose(error)
            return
        self._lost_since = None
        self._ended = answer["finished"]
        self._end = max(self._end, answer["end"])
        self._show()
        if not self._ended:
            self._ask()

    def _lose(self, error: Exception) -> None:
        from workerd.errors import HostUnreachable

        if self._follow is not None:
            self._follow.close()
            self._follow = None
        now = time.monotonic()
        self._lost_since = now if self._lost_since is None else self._lost_since
        if now - self._lost_since > PATIENCE or isinstance(error, HostUnreachable):
            raise error
        self._end = self._log.end()  # the log needs no daemon

    def _show(self) -> None:
        """One piece of what there is."""
        end = self._end
        if end - self._offset > TOO_FAR_BEHIND:
            self._skip(end - CATCH_UP)
        if end <= self._offset:
            return
        begin, data = self._log.read(self._offset, min(PIECE, end - self._offset))
        self._offset = begin + len(data) if data or begin > self._offset else end  # a log that was cut short
        self._shown(data)

    def _shown(self, data: bytes) -> None:
        self.modes.feed(data)
        stdio.write_all(stdio.STDOUT, data)
        self._last = data[-1:] or self._last

    def _skip(self, offset: int) -> None:
        """Only what the bytes do to the terminal's modes is heeded."""
        while self._offset < offset:
            begin, data = self._log.read(self._offset, min(1 << 20, offset - self._offset))
            if not data and begin <= self._offset:
                return
            before = self.modes.enter()
            self.modes.feed(data)
            if before != self.modes.enter():
                stdio.write_all(stdio.STDOUT, self.modes.enter())
            self._offset = begin + len(data)

    # ── what is typed ──

    def _patience(self) -> float:
        """Seconds for which more that is typed is left in our terminal; 0 where it is read."""
        if len(self._pending) < MOST_TYPED:
            return 0.0
        return max(0.0, self._taken_at + STUCK - time.monotonic())

    def _type(self) -> None:
        data = os.read(STDIN, 4096)
        if not data:
            self._filter.detached = True  # our terminal is gone; the job stays
            return
        now = time.monotonic()
        if now - self._typed_at > QUIET:
            self._resize(self._terminal.size())
        self._typed_at = now
        if not self._pending:
            self._taken_at = now
        passed = self._filter.feed(data)
        self._released_at = now + HELD_SECONDS if self._filter.holds else None
        if len(self._pending) < MOST_TYPED:
            self._pending += passed
        elif passed:
            stdio.write_all(stdio.STDOUT, b"\a")

    def _release(self) -> None:
        if self._released_at is not None and time.monotonic() >= self._released_at:
            self._pending += self._filter.release()
            self._released_at = None

    def _flush(self) -> None:
        if self._typing is None:
            self._pending = b""
        try:
            while self._pending and self._typing is not None:
                self._pending = self._pending[os.write(self._typing, self._pending[:4096]) :]
                self._taken_at = time.monotonic()
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = b""  # the job has just ended

    def _resize(self, size: dict[str, int]) -> None:
        from workerd.errors import ConnectionFailed

        try:
            if self._orders is None:
                self._orders = Connection()
            self._orders.ask("tty.resize", {"id": self._job_id, "window": size})
        except ConnectionFailed:
            self._drop_orders()

    def _take_answer(self) -> None:
        """A size that could not be given now is given with the next key."""
        from workerd.errors import ConnectionFailed

        assert self._orders is not None
        try:
            self._orders.receive()
        except ConnectionFailed:
            self._drop_orders()
            self._typed_at = float("-inf")

    def _drop_orders(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None
