"""What lies between workerd and a PID 1 that is being made: the pipe on which its first stage and it
say how far they are (workerd.startstatus), and the socket at which it waits for the word to go
(workerd/init/go.c).

The word is given by who has what comes with it. That is the store's thread, which makes the job's
output once the job is recorded: a PID 1 that has announced itself by then waits neither for the
loop nor for its first stage to have their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import socket
import threading

from workerd.auth import sender_of_next
from workerd.jobfiles import OutputFiles, RuntimeFiles
from workerd.retrying import until_possible

TRIES = 8
"""to watch what was started, where the machine has run out of something: some six seconds"""


class StatusPipe:
    """Both ends close-on-exec. Once somebody has waited it is watched until its end, or until it is
    closed: what epoll_ctl(2) did not let go of could not be watched once more."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._text = bytearray()
        self._ended = False
        self._watching: asyncio.AbstractEventLoop | None = None
        self._wanted: bytes | None = None
        self._there: asyncio.Future[None] | None = None

    @property
    def text(self) -> bytes:
        """All that was read."""
        return bytes(self._text)

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        """Can be repeated."""
        self.close_write_end()
        self._unwatch()
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1

    def read(self) -> bool:
        """What is there; whether that is the end."""
        try:
            piece = os.read(self.read_end, 4096)
        except OSError:
            return False  # nothing is there, or not now
        self._text.extend(piece)
        self._ended = not piece
        return self._ended

    async def wait(self, wanted: bytes | None) -> None:
        """For the end, or a line that begins so; one at a time. Raises OSError where it cannot be watched."""
        loop = asyncio.get_running_loop()
        if self._watching is None:
            watch = functools.partial(loop.add_reader, self.read_end, self._readable)
            await until_possible(watch, "a start cannot be watched", TRIES)
            self._watching = loop
        self._wanted, self._there = wanted, loop.create_future()
        if self._is_there():
            self._there.set_result(None)
        await self._there

    def _readable(self) -> None:
        if self.read():
            self._unwatch()
        if self._there is not None and not self._there.done() and self._is_there():
            self._there.set_result(None)

    def _is_there(self) -> bool:
        if self._ended or self._wanted is None:
            return self._ended
        lines = self.text.splitlines(keepends=True)
        return any(line.startswith(self._wanted) and line.endswith(b"\n") for line in lines)

    def _unwatch(self) -> None:
        loop, self._watching = self._watching, None
        if loop is not None:
            loop.remove_reader(self.read_end)

    def has_said(self) -> bool:
        """Whether there was or is anything, be it the end; what is not read yet stays for who waits for it."""
        if self._text or self.read_end < 0:  # closed: whatever was said has been heard
            return True
        poll = select.poll()
        poll.register(self.read_end, select.POLLIN)
        return bool(poll.poll(0))


class Gate:
    """Closed, it refuses. `open_early` is for another thread than the loop's, all else for that."""

    def __init__(self) -> None:
        self.pid = 0
        """whom it was opened for, where that was early"""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._early = True
        self._lock = threading.Lock()

    @property
    def far_end(self) -> int:
        return self._theirs.fileno()

    def close_far_end(self) -> None:
        self._theirs.close()

    def open(self, output: OutputFiles, runtime: RuntimeFiles) -> None:
        """Where PID 1 is gone, the status pipe tells why. Raises OSError."""
        fds = [output.log, output.index, *runtime.fds()]
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._ours, [b"\n"], fds, socket.MSG_NOSIGNAL)

    def open_early(self, output: OutputFiles, runtime: RuntimeFiles) -> None:
        """Only for a PID 1 that has announced itself, of which the kernel says who it is (SCM_CREDENTIALS,
        unix(7)). Else, and where it cannot be, that is left to the loop."""
        with self._lock, contextlib.suppress(OSError):
            if not self._early:
                return  # and what it would hand out may be gone
            pid = sender_of_next(self._ours, socket.MSG_DONTWAIT)
            if pid:
                self.open(output, runtime)
                self.pid = pid

    def stays_closed(self) -> bool:
        """Whether it was not opened early; then it will not be."""
        with self._lock:
            self._early = False
        return self.pid == 0

    def close(self) -> None:
        """Can be repeated."""
        self.stays_closed()
        self._ours.close()
        self._theirs.close()
