"""`signal`: a named signal to jobs' commands; `kill -s` with the words the other way round."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import SHAPES
from workerctl.signals import number

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "signal",
    "[OPTIONS] SIG ID…",
    "Send a job's command a signal.",
    text="""
        A paused job gets it when it is resumed, but SIGKILL at once.
    """,
    groups={"Options": [Option("-a --all", "to every process of the job, not only its command"), *SHAPES]},
    examples=[("signal HUP web", "the same as: kill -s HUP web"), ("signal USR1 j1 j2", "to two jobs")],
)


def main(args: Args) -> int:
    if len(args.words) < 2:
        raise UsageError("which signal to which job? Write: workerctl signal SIG ID…")
    name, *args.words = args.words
    params: dict[str, Any] = {"signal": number(name, "the signal"), **({"all": True} if args.has("all") else {})}
    return each_job(args, "job.kill", params)
