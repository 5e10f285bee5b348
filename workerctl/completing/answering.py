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
        _take_machine(words)
        stdio.put(complete(list(words) or [""]).text())
    except Exception:
        if os.environ.get("WORKERCTL_DEBUG") == "1":
            raise
    return 0  # a person who presses Tab is not to be told of errors


def _take_machine(words: Sequence[str]) -> None:
    """The daemon that the line itself names is the one to ask for jobs."""
    names = {"--socket": "WORKERD_SOCKET", "--host": "WORKER_HOST", "-H": "WORKER_HOST", "--cluster": "WORKER_CLUSTER"}
    for place, word in enumerate(words[:-1]):
        flag, equals, value = word.partition("=")
        if flag in names and equals:
            os.environ[names[flag]] = value
        elif flag in names and place + 2 < len(words):
            os.environ[names[flag]] = words[place + 1]
    if os.environ.get("WORKER_HOST", "").startswith("unix://"):
        from workerctl.remote.address import settle

        settle(os.environ["WORKER_HOST"], None)
