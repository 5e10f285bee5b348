"""`workerctl __complete WORD…`: the answer to a completion script, and never an error."""

from __future__ import annotations

import os

from workerctl import stdio
from workerctl.completing import complete

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence


def answer(words: Sequence[str]) -> int:
    try:
        _take_socket(words)
        stdio.put(complete(list(words) or [""]).text())
    except Exception:
        if os.environ.get("WORKERCTL_DEBUG") == "1":
            raise
    return 0  # a person who presses Tab is not to be told of errors


def _take_socket(words: Sequence[str]) -> None:
    """The daemon that the line itself names is the one to ask for jobs."""
    for place, word in enumerate(words[:-1]):
        if word.startswith("--socket="):
            os.environ["WORKERD_SOCKET"] = word.partition("=")[2]
        elif word == "--socket" and place + 2 < len(words):
            os.environ["WORKERD_SOCKET"] = words[place + 1]
