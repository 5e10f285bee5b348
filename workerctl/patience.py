"""Asking again while the daemon restarts.

An upgrade leaves jobs running, so whoever waits for one or follows it should not
notice either. Through systemd the socket never closes; without it nobody listens
for a moment, and the first tries find that.
"""

from __future__ import annotations

import time

from workerctl import stdio
from workerd.errors import ConnectionFailed, HostUnreachable, SocketForbidden, Unavailable

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.wire import Connection

PATIENCE = 20.0
"""seconds without a daemon before its absence is an error"""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


def call_again(connection: Connection, method: str, params: dict[str, Any], error: Exception) -> dict[str, Any]:
    """The result of a call that just failed with `error`. Raises it, or the last
    one, where asking again is no use."""
    deadline = time.monotonic() + PATIENCE
    pause = FIRST_PAUSE
    if _passing(error):
        stdio.note("the connection to workerd was lost; trying again (jobs run on)")
    while _passing(error) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            connection.reconnect()
            return connection.call(method, params)
        except (ConnectionFailed, Unavailable) as again:
            error = again
    raise error


def _passing(error: Exception) -> bool:
    """Whether it may be the daemon restarting."""
    lasting = isinstance(error, (HostUnreachable, SocketForbidden))
    return isinstance(error, (ConnectionFailed, Unavailable)) and not lasting
