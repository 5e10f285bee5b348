"""Answers that wait for a client to read them, with the descriptors that ride on them.

The first answer of a turn of the loop leaves at once, those after it together at the
turn's end, and those that are gathered together as well: one system call, and one wake-up
of the client, for many pipelined requests.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from workerd import fdpass, gate

_MAX_BYTES = 8 << 20
"""that a client may leave unread"""
_CROWDED_BYTES, _CROWDED_FDS = 256 << 10, 32
_TOGETHER = 64 << 10
"""bytes of answers that are sent in one call"""


class Outbox:
    """Owns the descriptors in it. `relieved` is called when something was sent after the
    client had to be waited for, `broken` when there is nobody to send to any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        account: gate.Account,
        relieved: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._account = account
        self._relieved = relieved
        self._broken = broken
        self._queue: deque[tuple[bytes | memoryview, tuple[int, ...]]] = deque()
        self._bytes = 0
        self._fds = 0
        self._turn: asyncio.Handle | None = None
        """the end of a turn in which something was sent by now"""
        self._blocked = False
        """whether the client has to read before more can be sent"""
        self._gathering = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def crowded(self) -> bool:
        """So much waits that no more requests should be read."""
        return self._bytes > _CROWDED_BYTES or self._fds > _CROWDED_FDS

    @property
    def full(self) -> bool:
        """So much waits that the client is hopeless."""
        return self._bytes > _MAX_BYTES or self._account.unsent > gate.MAX_UNSENT

    def put(self, line: bytes, fds: tuple[int, ...]) -> bool:
        """Whether so much waits now that it is `crowded`, or `full`."""
        self._queue.append((line, fds))
        self._count(len(line), len(fds))
        if self._gathering:
            if not self._blocked and self._bytes > _TOGETHER:
                self._flush()
        elif not self._blocked and self._turn is None:
            self._turn = self._loop.call_soon(self._end_turn)
            self._flush()
        return self.crowded or self.full

    def gather(self) -> None:
        """Answers wait from now on for `send`, or until they are enough for one call."""
        self._gathering = True

    def send(self) -> None:
        """What was gathered; nothing where nothing was."""
        self._gathering = False
        if self._queue and not self._blocked and self._turn is None:
            self._flush()

    def close(self) -> None:
        """What the client does not take at once is dropped; can be repeated."""
        waits_for_turn = self._gathering or self._turn is not None
        self._gathering = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if waits_for_turn and not self._blocked:
            self._send_all()
        self._loop.remove_writer(self._sock)
        for _, fds in self._queue:
            fdpass.close_all(fds)
        self._queue.clear()
        self._count(-self._bytes, -self._fds)

    def _count(self, size: int, fds: int) -> None:
        self._bytes += size
        self._account.unsent += size
        self._fds += fds

    def _flush(self) -> None:
        if not self._send_all():
            self._broken()

    def _send_all(self) -> bool:
        """As much as the client takes; False where there is nobody to take it."""
        while self._queue:
            view, fds, lines = self._next()
            try:
                sent = fdpass.send(self._sock, view, fds)
            except (BlockingIOError, InterruptedError):
                return self._wait()
            except OSError:
                return False
            fdpass.close_all(fds)
            self._count(-sent, -len(fds))
            for _ in range(lines):
                self._queue.popleft()
            if sent < len(view):
                self._queue.appendleft((memoryview(view)[sent:], ()))
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._sock)
        return True

    def _wait(self) -> bool:
        """For the client to read; False where nobody would tell (epoll_ctl(2))."""
        try:
            self._loop.add_writer(self._sock, self._writable)
        except OSError:
            return False
        self._blocked = True
        return True

    def _next(self) -> tuple[bytes | memoryview, tuple[int, ...], int]:
        """What one call may send: an answer with its descriptors, or several without;
        and how many answers that is."""
        view, fds = self._queue[0]
        if fds or len(self._queue) == 1:
            return view, fds, 1
        if self._fds == 0 and self._bytes <= _TOGETHER:
            return b"".join([line for line, _ in self._queue]), (), len(self._queue)
        size = 0
        lines: list[bytes | memoryview] = []
        for line, riders in self._queue:
            if riders or (lines and size + len(line) > _TOGETHER):
                break
            lines.append(line)
            size += len(line)
        return b"".join(lines), (), len(lines)

    def _end_turn(self) -> None:
        self._turn = None
        if self._queue and not self._blocked:
            self._writable()

    def _writable(self) -> None:
        self._flush()
        self._relieved()
