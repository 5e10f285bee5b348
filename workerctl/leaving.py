"""The detach keys beside a job whose output is only followed: `run -f --detach-keys`.

Our terminal gives each key at once, and shows none, for as long as the job is followed;
Ctrl-C and Ctrl-Z stay signals. A thread reads the keys, since the main one waits for the
daemon; nothing but the detach keys means anything, so the rest is dropped.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import os

from workerctl import threads
from workerctl.detachkeys import Filter
from workerctl.rawterm import Ended, RawTerminal, die_of

try:
    import termios
except ImportError:  # Windows; can_watch is False there
    pass

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

SIGUSR1 = getattr(_signal, "SIGUSR1", 0)


class Detached(BaseException):
    """The keys were pressed. Not an Exception: nobody handles it on the way."""


class Watch(RawTerminal):
    """Within `with`, the keys at the terminal `fd` raise Detached in the main thread.
    The terminal is as it was on every way out; a signal that ends us still does."""

    ending = (1, 3, 15)

    def __init__(self, fd: int, keys: bytes) -> None:
        super().__init__(fd)
        self._filter = Filter(keys)

    def __enter__(self) -> Watch:
        self._handle((SIGUSR1,), _detach)
        super().__enter__()
        _signal.set_wakeup_fd(self._wakeup_before)  # wakeup's: nobody here reads ours
        threads.begin(self._read)
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if isinstance(error[1], Ended):
            die_of(error[1].number)

    def _change(self, modes: list[Any]) -> None:
        modes[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0

    def _on_continue(self, *_: object) -> None:
        if os.tcgetpgrp(self._fd) == os.getpgrp():  # else it is the shell's: `bg`
            super()._on_continue()

    def _read(self) -> None:
        try:
            while not self._filter.detached and (typed := os.read(self._fd, 4096)):
                self._filter.feed(typed)
        except OSError:
            return  # the terminal is gone, or we are in its background
        if self._filter.detached:
            os.kill(os.getpid(), SIGUSR1)


def _detach(*_: object) -> None:
    raise Detached


def can_watch(fd: int) -> bool:
    """Whether keys can be pressed: at a terminal, whose foreground we are."""
    return os.isatty(fd) and hasattr(os, "tcgetpgrp") and os.tcgetpgrp(fd) == os.getpgrp()
