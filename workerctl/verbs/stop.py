"""`stop`: the stop signal, the grace, then SIGKILL; done by the daemon."""

from __future__ import annotations

from workerctl.each import call_each
from workerctl.listing import list_jobs
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.progress import stopping
from workerctl.shape import SHAPES, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "stop",
    "[OPTIONS] ID…",
    "Stop jobs, and wait until they are gone.",
    text="""
        The command gets the stop signal (SIGTERM, unless `run --stop-signal` said another), and
        after the grace (10s, unless `run --grace` said another) all that is left is killed.
        Ctrl-C gives up waiting; the stop goes on.
    """,
    groups={
        "Options": [
            Option("-t --grace", "time before SIGKILL; 0 kills at once", "TIME"),
            Option("--signal", "send this first", "SIG"),
            Option("-a --all", "every job of yours that lives (root: everybody's)"),
            *SHAPES,
        ],
    },
    examples=[
        ("stop build", "the job named build"),
        ("stop -t 1m --signal INT j1 j2", "two, with SIGINT and a minute's time"),
    ],
)


def main(args: Args) -> int:
    if not args.words and not args.has("all"):
        raise UsageError("stop which job? Write: workerctl stop ID…, or stop --all")
    if args.words and args.has("all"):
        raise UsageError("--all stops every job: name none beside it")
    check(args)
    params = _params(args)
    with Connection() as connection:
        ids = args.words or [job["id"] for job in list_jobs(connection)]
        with stopping(ids):
            jobs, code = call_each(connection, "job.stop", [{"id": job_id, **params} for job_id in ids])
    put_jobs(args, jobs, array=len(args.words) != 1)
    return code


def _params(args: Args) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if (grace := args.text("grace")) is not None:
        from workerctl.limits import grace_of

        params["grace"] = grace_of(grace, "--grace")
    if (signal := args.text("signal")) is not None:
        from workerctl.signals import number

        params["signal"] = number(signal, "--signal")
    return params
