"""`rm`: forget finished jobs and their output."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Option, Verb
from workerctl.shape import SHAPES

VERB = Verb(
    "rm",
    "[OPTIONS] ID…",
    "Forget finished jobs, and what they wrote.",
    text="""
        The daemon forgets old jobs by itself, as [history] of its configuration says; `prune`
        forgets many at once.
    """,
    groups={
        "Options": [
            Option("-f --force", "a job that still lives is stopped first"),
            *SHAPES,
        ]
    },
    examples=[("rm build", "the job named build"), ("rm -f $(workerctl ps -q)", "stop and forget all that live")],
)


def main(args: Args) -> int:
    return each_job(args, "job.remove", {"force": True} if args.has("force") else {})
