"""A signal is handled at once, even one that comes in the instant before a call that waits.

Python only notes a signal when it comes, and runs its handler between two instructions
(signal(3) of its library). A system call that is entered between the note and the next
instruction waits as if nothing had come: Ctrl-C is lost until something else happens.
The note is also a byte in a pipe, though: here a thread reads it, and interrupts what the
main thread waits in until the handlers have run. The call goes on afterwards (PEP 475).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import _thread
import os

from workerctl import threads

NUDGE = getattr(_signal, "SIGURG", 0)
"""ignored by every program that does not ask for it, so by those we start as well"""
AGAIN_SECONDS = 0.02
_handled = _thread.allocate_lock()
"""let go of by the handler, taken by the thread that waits for it"""
_begun = False


def begin() -> None:
    """From now on; in the main thread. Windows has no call that a signal interrupts."""
    global _begun
    if _begun or not NUDGE:
        return
    _begun = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _handled.acquire()
    _signal.signal(NUDGE, _note_handled)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threads.begin(_nudge_for_each, reading, _thread.get_ident())


def _note_handled(*_: object) -> None:
    """Python runs the handlers of all signals that have come when it runs this one."""
    try:
        _handled.release()
    except RuntimeError:
        return  # by an earlier nudge


def _nudge_for_each(reading: int, main_thread: int) -> None:
    while came := os.read(reading, 512):
        while came.strip(bytes([NUDGE])) and not _was_handled(main_thread):
            pass


def _was_handled(main_thread: int) -> bool:
    _handled.acquire(blocking=False)  # an earlier nudge's
    _signal.pthread_kill(main_thread, NUDGE)
    return _handled.acquire(timeout=AGAIN_SECONDS)
