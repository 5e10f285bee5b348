"""`wait`: until jobs are finished."""

from __future__ import annotations

from workerctl import exitcode, stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.progress import waiting_for
from workerctl.shape import SHAPES, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "wait",
    "[OPTIONS] ID…",
    "Wait until jobs are finished.",
    text="""
        Prints nothing, but with --any the id of the job that finished; a terminal shows meanwhile
        how long it has been. The exit code is the
        job's own; of several jobs the first one that is not 0; 124 when the time was over.

        With --match: 0 once a line matches (Python's regular expressions, in what is kept and
        what comes), 1 when the output has ended without one, 124 when the time was over.
    """,
    groups={
        "Options": [
            Option("--any", "wait for one of them, not all, and print which"),
            Option("--timeout", "give up after this long, as 90s or 5m; the jobs run on", "TIME"),
            Option("--match", "wait for a line of its output that matches, and print that", "REGEX"),
            Option("--stdout", "with --match: look at its stdout only"),
            Option("--stderr", "with --match: look at its stderr only"),
            *SHAPES,
        ],
    },
    examples=[
        ("wait build && echo good", "the job named build"),
        ("wait web --match 'listening on' --timeout 30s", "until it says so"),
        ("wait $(workerctl ps -q)", "all that run now"),
        ("wait --any --timeout 10m j1 j2", "the first of two, ten minutes at most"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("wait for which job? Write: workerctl wait ID…")
    if args.has("match"):
        return _match(args)
    check(args)
    params: dict[str, Any] = {"ids": args.words}
    if args.has("any"):
        params["any"] = True
    with Connection() as connection, waiting_for(args.words):
        answer = _wait(connection, params, args)
    jobs = answer["finished"]
    _show(jobs, args)
    codes = [exitcode.of_job(job) for job in jobs]
    if answer.get("pending") and not (args.has("any") and jobs):
        stdio.note(f"not finished yet: {', '.join(answer['pending'])}")
        return exitcode.TIMED_OUT
    return next((code for code in codes if code), 0)


def _match(args: Args) -> int:
    from workerctl.limits import duration_of
    from workerctl.match import Search, wait_for
    from workerctl.verbs.out import stream_of

    if len(args.words) != 1 or args.has("any") or args.has("json") or args.has("format"):
        raise UsageError("--match looks at one job's output: workerctl wait ID --match REGEX [--timeout TIME]")
    timeout = args.text("timeout")
    search = Search(args.text("match") or "")
    with Connection() as connection:
        limit = None if timeout is None else duration_of(timeout, "--timeout")
        return wait_for(connection, args.words[0], search, stream_of(args), limit)


def _wait(connection: Connection, params: dict[str, Any], args: Args) -> dict[str, Any]:
    text = args.text("timeout")
    if text is None:
        return connection.call_patiently("job.wait", params)
    from workerctl.limits import duration_of

    # Not patiently: asked again, the whole time would begin anew.
    return connection.call("job.wait", {**params, "timeout": duration_of(text, "--timeout")})


def _show(jobs: list[dict[str, Any]], args: Args) -> None:
    if put_jobs(args, jobs, array=len(args.words) != 1):
        return
    if args.has("any"):
        stdio.put("".join(f"{job['id']}\n" for job in jobs))
