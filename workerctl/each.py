"""One call for each of several jobs, all under way at once; the failures told one by one."""

from __future__ import annotations

from workerctl import exitcode, stdio
from workerctl.shape import check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from workerctl.options import Args


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


def each_job(args: Args, method: str, params: dict[str, Any]) -> int:
    """A verb whose words are jobs, all called with the same parameters; `--json` shows
    what came back: one job, or an array where several were named; `--format` a line for each."""
    from workerctl.options import UsageError

    if not args.words:
        verb = method.rpartition(".")[2].replace("remove", "rm")
        raise UsageError(f"{verb} which job? Write: workerctl {verb} ID…")
    check(args)
    with Connection() as connection:
        jobs, code = call_each(connection, method, [{"id": job_id, **params} for job_id in args.words])
    put_jobs(args, jobs, array=len(args.words) != 1)
    return code
