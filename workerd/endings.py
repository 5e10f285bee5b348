"""What a PID 1 says when all of its job is over but itself: nothing, from whom the kernel says it
comes (SCM_CREDENTIALS, unix(7)).

The kernel takes as long to end a PID 1, with its mounts, as workerd to find out how the job has
ended: both can be done at once. Nothing depends on it: the end itself is told by the pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from workerd.auth import sender_of_next
from workerd.sealedprogram import out_of_the_way


class Endings:
    """Calls `told` with the pid of whoever it is that ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[int], None]) -> None:
        self._loop = loop
        self._told = told
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._theirs = socket.socket(fileno=out_of_the_way(theirs.fileno()))
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        loop.add_reader(self._ours, self._readable)

    @property
    def far_end(self) -> int:
        """For a first stage, whose PID 1s inherit it."""
        return self._theirs.fileno()

    def close(self) -> None:
        """Can be repeated."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours)
        self._ours.close()
        self._theirs.close()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._told(sender_of_next(self._ours))
