"""`kill`: a signal to a job's command, or to all its processes."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import SHAPES

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "kill",
    "[OPTIONS] ID…",
    "Send a signal to a job's command: SIGKILL, unless -s says another.",
    text="""
        When the command ends, whatever else the job started is killed too. To give a job time
        to end in order, use `workerctl stop`.
    """,
    groups={
        "Options": [
            Option("-s --signal", "the signal, as TERM, SIGTERM or 15 [KILL]", "SIG"),
            Option("-a --all", "to every process of the job, not only its command"),
            *SHAPES,
        ],
    },
    examples=[
        ("kill build", "at once"),
        ("kill -s HUP web", "the job named web reads its configuration again"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("kill which job? Write: workerctl kill ID…")
    params: dict[str, Any] = {}
    if (signal := args.text("signal")) is not None:
        from workerctl.signals import number

        params["signal"] = number(signal, "--signal")
    if args.has("all"):
        params["all"] = True
    return each_job(args, "job.kill", params)
