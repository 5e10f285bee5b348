"""inotify(7) for the event loop: to be told when a file was written to."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_EVENT = struct.Struct("iIII")


class Inotify:
    """Calls back once for each batch of writes to a watched file; costs nothing where
    nothing is watched. Belongs to the loop that it was made in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._check(self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify")
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._fd, self._ready)

    def add(self, path: str, callback: Callable[[], None]) -> int:
        """A watch's number, for `remove`. One watch a file. Raises OSError."""
        watch = self._check(self._libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY), path)
        self._callbacks[watch] = callback
        return watch

    def remove(self, watch: int) -> None:
        if self._callbacks.pop(watch, None) is not None:
            self._libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        told: set[int] = set()
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            # After an overflow (inotify(7)) it is not known whose events are missing.
            told |= set(self._callbacks) if mask & _IN_Q_OVERFLOW else {watch}
        for watch in told:
            if (callback := self._callbacks.get(watch)) is not None:
                callback()

    @staticmethod
    def _check(result: int, path: str) -> int:
        if result < 0:
            code = ctypes.get_errno()
            if code == errno.ENOSPC:
                raise OSError(code, "no inotify watch is left (fs.inotify.max_user_watches)", path)
            raise OSError(code, os.strerror(code), path)
        return int(result)
