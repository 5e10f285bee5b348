"""Our own terminal in raw mode, and back as it was on every way out.

Between the two, a signal that would end us is an exception, so that what is restored
is restored; only SIGKILL cannot be caught (then: `stty sane`). Being stopped and going
on (kill -STOP, -CONT, a shell's `fg`) is followed as well.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import os
from contextlib import contextmanager

try:
    import termios
except ImportError:  # Windows; need_terminal says so before anything is asked of it here
    pass

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

ENDING = (1, 2, 3, 15)
"""SIGHUP SIGINT SIGQUIT SIGTERM"""
SIGSTOP, SIGTSTP, SIGCONT, SIGWINCH = (
    getattr(_signal, name, 0) for name in ("SIGSTOP", "SIGTSTP", "SIGCONT", "SIGWINCH")
)
"""their numbers are not the same everywhere; Windows has none"""


class Ended(BaseException):
    """A signal that ends us came; `number` is which. Not an Exception: nobody handles it on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class RawTerminal:
    """The terminal at `fd`, raw within `with`. `wakeup` becomes readable when a signal came."""

    ending: tuple[int, ...] = ENDING

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        self.resized = False
        """whether SIGWINCH (or a SIGCONT) came; the reader sets it back"""
        self.wakeup, self._wake_end = os.pipe()
        for end in (self.wakeup, self._wake_end):
            os.set_blocking(end, False)
        self._handlers: list[tuple[int, object]] = []
        self._wakeup_before = -1

    def __enter__(self) -> RawTerminal:
        self._handle(self.ending, self._on_end)
        self._handle((SIGWINCH,), self._on_resize)
        self._handle((SIGTSTP,), self._on_stop)
        self._handle((SIGCONT,), self._on_continue)
        self._wakeup_before = _signal.set_wakeup_fd(self._wake_end)
        self._make_raw()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        _signal.set_wakeup_fd(self._wakeup_before)
        for number, before in self._handlers:
            _signal.signal(number, before if before is not None else _signal.SIG_DFL)
        os.close(self.wakeup)
        os.close(self._wake_end)

    def woken(self) -> None:
        """Empties `wakeup`."""
        try:
            os.read(self.wakeup, 512)
        except BlockingIOError:
            return

    def restore(self) -> None:
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        except termios.error:
            return  # the terminal is gone

    @contextmanager
    def lent(self) -> Iterator[None]:
        """As it was, for another program; signals of the terminal are that program's alone."""
        _signal.signal(2, lambda *_: None)  # not SIG_IGN, which that program would inherit
        self.restore()
        try:
            yield
        finally:
            self._make_raw()
            _signal.signal(2, self._on_end)

    def size(self) -> dict[str, int]:
        """As job.run and tty.resize take it."""
        return size_of(self._fd)

    def _handle(self, numbers: Iterable[int], handler: object) -> None:
        for number in numbers:
            self._handlers.append((number, _signal.signal(number, handler)))

    def _make_raw(self) -> None:
        modes = termios.tcgetattr(self._fd)
        self._change(modes)
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)

    def _change(self, modes: list[Any]) -> None:
        modes[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP)
        modes[0] &= ~(termios.IXON | termios.INLCR | termios.IGNCR)
        modes[1] &= ~termios.OPOST
        modes[2] = modes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        modes[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0

    def _on_end(self, number: int, _: object) -> None:
        raise Ended(number)

    def _on_resize(self, *_: object) -> None:
        self.resized = True

    def _on_stop(self, *_: object) -> None:
        self.restore()
        os.kill(os.getpid(), SIGSTOP)

    def _on_continue(self, *_: object) -> None:
        self._make_raw()
        self.resized = True


def size_of(fd: int) -> dict[str, int]:
    """The terminal's size; a usual one where it does not know."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        columns = rows = 0
    return {"rows": rows or 24, "columns": columns or 80}


def die_of(number: int) -> None:
    """Ends us by the signal itself, so that whoever waits for us sees which."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
