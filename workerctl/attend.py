"""`run --wait` and `run -f`: staying with a job until it ends, and Ctrl-C meanwhile."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import os

from workerctl import exitcode, stdio, wakeup
from workerctl.wire import Connection, request

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Show = Callable[[dict[str, Any]], object]
    """puts a job on stdout as programs want it"""


SIGINT = 2


class Interrupts:
    """Ctrl-C, from now on: first to the job, then a stop, then it is only workerctl that goes.

    The handler speaks to the daemon itself, on a connection of its own: the call
    that it interrupted is resumed afterwards (PEP 475), so no answer and no byte
    of output is lost or written twice.
    """

    def __init__(self) -> None:
        self.count = 0
        self.job_id: str | None = None
        self._stopping: Connection | None = None
        _signal.signal(SIGINT, self._on_interrupt)
        wakeup.begin()

    def __enter__(self) -> Interrupts:
        return self

    def __exit__(self, *_: object) -> None:
        """What was asked for is done all the same."""
        if self._stopping is not None:
            self._stopping.close()

    def started(self, job_id: str) -> None:
        """The job is there: what was pressed before goes to it now."""
        self.job_id = job_id
        if self.count:
            self._act(job_id)

    def _on_interrupt(self, *_: object) -> None:
        self.count += 1
        if stdio.is_terminal(stdio.STDERR):
            stdio.write_all(stdio.STDERR, b"\n")  # after the terminal's own ^C
        if self.job_id is not None:
            self._act(self.job_id)
        elif self.count > 1:
            raise KeyboardInterrupt

    def _act(self, job_id: str) -> None:
        from workerd.errors import WorkerError

        if self.count > 2:
            stdio.note(f"leaving job {job_id} to stop by itself; see: workerctl status {job_id}")
            raise KeyboardInterrupt
        try:
            if self.count == 1:
                stdio.note(f"sending SIGINT to job {job_id}; Ctrl-C again stops it")
                with Connection() as connection:
                    connection.call("job.kill", {"id": job_id, "signal": SIGINT})
            else:
                stdio.note(f"stopping job {job_id}")
                self._stop(job_id)
        except WorkerError as error:
            if error.kind not in ("no-such-job", "wrong-state"):  # it just ended
                stdio.note(str(error))

    def _stop(self, job_id: str) -> None:
        """Asks for the stop without waiting for its end, which the caller waits for anyway."""
        self._stopping = Connection()
        self._stopping.send(request(self._stopping.next_id(), "job.stop", {"id": job_id}))


def attend(
    params: dict[str, Any],
    *,
    follow: bool,
    show: Show | None = None,
    stdin: int | None = None,
    raw: bool = False,
    keys: bytes = b"",
) -> int:
    """Runs a job to its end; its exit code, or 0 where `keys`, pressed at our terminal,
    left it before. `stdin` is a descriptor for its standard input, and closed here; `raw`
    shows its output unchanged on a terminal too; `show` is called with the finished job."""
    from workerctl.verbs.run import warn

    with Interrupts() as interrupts, Connection() as connection:
        result = start(connection, params, stdin)
        warn(result)
        job_id = result["id"]
        if follow:  # imported before a signal's handler may want the same modules
            from workerctl.follow import stream_apart
        interrupts.started(job_id)
        # Asked now: a job of --rm may be forgotten before the last of its output is through.
        waiting = _wait_apart(job_id) if follow and params["spec"].get("remove") else None

        def stay() -> int:
            if follow:
                stream_apart(connection, job_id, raw=raw)
            answer = waiting() if waiting else _wait(connection, job_id, alone=not follow)
            return finish(answer["finished"][0], show)

        return _leavable(stay, job_id, keys) if keys else stay()


def _wait(connection: Connection, job_id: str, *, alone: bool) -> dict[str, Any]:
    """Until it is finished; `alone`: nothing of its output is on the terminal."""
    if not alone:
        return connection.call_patiently("job.wait", {"ids": [job_id]})
    from workerctl.progress import waiting_for

    with waiting_for([job_id]):
        return connection.call_patiently("job.wait", {"ids": [job_id]})


def _leavable(stay: Callable[[], int], job_id: str, keys: bytes) -> int:
    from workerctl.leaving import Detached, Watch, can_watch

    if not can_watch(stdio.STDIN):
        return stay()
    try:
        with Watch(stdio.STDIN, keys):
            return stay()
    except Detached:
        stdio.note(f"detached from job {job_id}, which runs on; its output: workerctl out -f {job_id}")
        return 0


def start(connection: Connection, params: dict[str, Any], stdin: int | None) -> dict[str, Any]:
    """job.run; `stdin` is the job's from then on, and closed here."""
    if stdin is None:
        return connection.call("job.run", params)
    try:
        return connection.call("job.run", {**params, "stdin": True, "fds": 1}, [stdin])
    finally:
        if stdin > stdio.STDERR:
            os.close(stdin)


def finish(job: dict[str, Any], show: Show | None) -> int:
    """The exit code of a finished job, after a word on its end."""
    _tell(job)
    if show is not None:
        show(job)
    return exitcode.of_job(job)


def _wait_apart(job_id: str) -> Callable[[], dict[str, Any]]:
    """A job.wait that is asked at once, on a connection of its own; calling it gives the answer."""
    connection = Connection()
    number = connection.next_id()
    connection.send(request(number, "job.wait", {"ids": [job_id]}))

    def answer() -> dict[str, Any]:
        try:
            return connection.take(number)
        finally:
            connection.close()

    return answer


def _tell(job: dict[str, Any]) -> None:
    """A word on an end that its exit code alone would leave a riddle."""
    if job.get("reason") in ("oom", "timeout", "lost", "stopped", "skipped"):
        from workerctl.words import ending

        stdio.note(f"job {job['id']}: {ending(job)}")
