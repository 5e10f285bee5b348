"""One alarm by the wall clock: it rings when the clock on the wall says so, also when
somebody sets that clock meanwhile, which a timer of the event loop would not notice."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Callable

_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_ITIMERSPEC = struct.Struct("@llll")  # interval, then value: struct itimerspec, timerfd_create(2)

_libc = ctypes.CDLL(None, use_errno=True)


class WallTimer:
    """Owns its descriptor. Belongs to the loop that it was made in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        """Raises OSError."""
        self._loop = loop
        self._ring = ring
        self._fd = _checked(_libc.timerfd_create(time.CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC))
        loop.add_reader(self._fd, self._readable)

    def set(self, when: int | None) -> None:
        """Ring at `when`, microseconds since the epoch, at once where that is over; None: not at all."""
        # A value of zero would disarm it.
        seconds, micros = divmod(max(when, 1), 1_000_000) if when is not None else (0, 0)
        _checked(
            _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, _ITIMERSPEC.pack(0, 0, seconds, micros * 1000), None)
        )

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._ring()


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"timerfd: {os.strerror(code)}")
    return result
