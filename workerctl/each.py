"""One call for each of several jobs, all under way at once; the failures told one by one."""

from __future__ import annotations

from workerctl import exitcode, stdio
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def call_each(
    connection: Connection, method: str, params: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """The jobs that came back, and the exit code: 0, or 125 where one failed."""
    if len(params) == 1:
        return [connection.call(method, params[0])], 0
    jobs, code = [], 0
    for result in connection.call_many(method, params):
        if isinstance(result, dict):
            jobs.append(result)
        else:
            stdio.note(str(result))
            code = exitcode.FAILED
    return jobs, code
