"""`wait --match`: until a line of a job's output matches."""

from __future__ import annotations

import re
import time

from workerctl import exitcode, stdio, wakeup
from workerctl.lines import Lines
from workerctl.options import UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.wire import Connection
    from workerd.output import Log

    Found = tuple[int, int, bytes]

NO_MATCH = 1
"""exit code: the output ended without one"""
LONGEST = 1 << 16
"""bytes of a line not yet ended that are searched again when it grows"""


class Search:
    """Looks for a pattern in each line, also in one that has not ended (a prompt, say).

    There a match counts only if it stands whatever comes next: `done$` waits for
    the newline, `login:` does not.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern.encode(errors="surrogateescape"))
        except re.error as error:
            raise UsageError(f"--match {pattern}: not a regular expression: {error}") from error
        self._lines = Lines()

    def feed(self, stream: int, when: int, data: bytes) -> Found | None:
        for kind, began, line in self._lines.feed(stream, when, data):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if self._pattern.search(line):
                return kind, began, line
        begun = self._lines.unfinished(stream)[-LONGEST:]
        if begun and all(self._pattern.search(begun + more) for more in (b"", b"a", b" ")):
            return stream, when, begun
        return None

    def rest(self) -> Found | None:
        """The output is over: what has no newline is whole."""
        return next((found for found in self._lines.rest() if self._pattern.search(found[2])), None)


def wait_for(connection: Connection, job_id: str, search: Search, stream: int | None, timeout: int | None) -> int:
    """Prints the line that matches; 0, NO_MATCH, or TIMED_OUT after `timeout` microseconds."""
    deadline = None if timeout is None else time.monotonic() + timeout / 1e6
    wakeup.begin()
    with connection.open_log(job_id) as log:
        offset = log.header().kept_from
        while True:
            now = log.extent()
            if found := _look(log, offset, now.end, search, stream):
                return _tell(found)
            offset = now.end
            if now.complete:
                break
            params = {"id": job_id, "offset": offset}
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    stdio.note(f"nothing that job {job_id} wrote matched in time")
                    return exitcode.TIMED_OUT
                params["timeout"] = int(left * 1e6) + 1
            answer = connection.call_patiently("output.wait", params)
            if answer["finished"] and offset >= log.end():
                break
    if found := search.rest():
        return _tell(found)
    stdio.note(f"job {job_id} has ended its output, and nothing in it matched")
    return NO_MATCH


def _look(log: Log, start: int, end: int, search: Search, stream: int | None) -> Found | None:
    for _, kind, when, data in log.timed_pieces(start, end, stream):
        if found := search.feed(kind, when, data):
            return found
    return None


def _tell(found: Found) -> int:
    line = found[2]
    if stdio.is_terminal(stdio.STDOUT):
        from workerctl.escape import visible

        stdio.put(visible(line.decode(errors="surrogateescape")) + "\n")
    else:
        stdio.write_all(stdio.STDOUT, line + b"\n")
    return 0
