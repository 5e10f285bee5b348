"""At a job's terminal, from coming in to the exit code: `run -it` and `attach`."""

from __future__ import annotations

import os

from workerctl import stdio
from workerctl.options import UsageError
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.attend import Show


def need_terminal(what: str, instead: str) -> None:
    """Raises UsageError where standard input is none, or none that can be had raw."""
    if os.name != "posix":
        raise UsageError(f"{what} needs a terminal of Linux or macOS; over ssh: ssh -t HOST workerctl …")
    if not stdio.is_terminal(stdio.STDIN):
        raise UsageError(f"{what} needs a terminal to type at, and standard input is none; {instead}")


def attach(job_id: str, keys: bytes, *, fresh: bool) -> dict[str, Any] | None:
    """Stays at the terminal of a job: the job as it finished, or None once detached.
    `fresh`: it was just started, so all that it showed is new."""
    from workerctl.rawterm import Ended, RawTerminal, die_of
    from workerctl.session import Session
    from workerd.errors import WrongState

    # Asked at once: a job of --rm may be forgotten before the last of its output is through.
    with Connection() as waiting, Connection() as connection:
        number = waiting.ask("job.wait", {"ids": [job_id]})
        typing: int | None = None
        try:
            _, (typing,) = connection.call_with_fds("tty.attach", {"id": job_id}, 1)
        except WrongState:
            if not fresh:
                raise
        log = connection.open_log(job_id)
        try:
            with log, RawTerminal(stdio.STDIN) as terminal:
                session = Session(job_id, log, typing, keys, terminal)
                try:
                    if not fresh:
                        session.recall()
                    ended = session.run()
                finally:
                    session.close()
                    _leave(session.leave())
        except Ended as end:
            die_of(end.number)
        finally:
            if typing is not None:
                os.close(typing)
        return _outcome(waiting, number, job_id) if ended else None


def stay(job_id: str, keys: bytes, *, fresh: bool, show: Show | None = None) -> int:
    """As `attach`, with a word on how it ended, after which `show` gets it; the exit code."""
    job = attach(job_id, keys, fresh=fresh)
    if job is None:
        stdio.note(f"detached from job {job_id}, which runs on; back to it: workerctl attach {job_id}")
        return 0
    from workerctl.attend import finish

    return finish(job, show)


def _leave(sequence: bytes) -> None:
    try:
        stdio.write_all(stdio.STDOUT, sequence)
    except OSError:
        return  # the terminal is gone


def _outcome(waiting: Connection, number: int, job_id: str) -> dict[str, Any]:
    from workerctl.patience import call_again
    from workerd.errors import ConnectionFailed, Unavailable

    try:
        answer = waiting.take(number)
    except (ConnectionFailed, Unavailable) as error:
        answer = call_again(waiting, "job.wait", {"ids": [job_id]}, error)
    job: dict[str, Any] = answer["finished"][0]
    return job
