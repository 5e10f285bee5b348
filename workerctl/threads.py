"""Threads beside the main one, which waits for the daemon: they copy, read keys, wake it.

Not `threading`: a signal handler may have to begin one while the main thread is in the
middle of beginning another, and that module's own lock would hold both up for ever.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import _thread

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def begin(function: Callable[..., None], *arguments: Any) -> None:
    """Calls it in a thread that ends with the process. Signals are the main thread's."""
    _thread.start_new_thread(_run, (function, arguments))


def _run(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    if hasattr(_signal, "pthread_sigmask"):  # Windows has none
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    function(*arguments)
