"""Answers that wait for a client to read them, with the descriptors that ride on them."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from workerd import fdpass, gate

_MAX_BYTES = 8 << 20
"""that a client may leave unread"""
_CROWDED_BYTES, _CROWDED_FDS = 256 << 10, 32


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
        self._queue: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._bytes = 0
        self._fds = 0

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

    def put(self, line: bytes, fds: tuple[int, ...]) -> None:
        self._queue.append((memoryview(line), fds))
        self._count(len(line), len(fds))
        if len(self._queue) == 1:
            self._flush()

    def close(self) -> None:
        """What was not sent is dropped; can be repeated."""
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
        while self._queue:
            view, fds = self._queue[0]
            try:
                sent = fdpass.send(self._sock, view, fds)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError:
                self._broken()
                return
            fdpass.close_all(fds)
            self._count(-sent, -len(fds))
            if sent < len(view):
                self._queue[0] = (view[sent:], ())
            else:
                self._queue.popleft()
        self._loop.remove_writer(self._sock)

    def _writable(self) -> None:
        self._flush()
        self._relieved()
