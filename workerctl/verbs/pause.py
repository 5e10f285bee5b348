"""`pause`: freeze jobs where they are."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Verb
from workerctl.shape import SHAPES

VERB = Verb(
    "pause",
    "[OPTIONS] ID…",
    "Freeze all processes of a job, until `workerctl resume`.",
    text="""
        A paused job keeps its memory and its place, and uses no CPU. Signals wait until it is
        resumed, but `stop` and `kill` (SIGKILL) end it as it is. Paused time does not count
        against --timeout.
    """,
    groups={"Options": SHAPES},
    examples=[("pause build", "the job named build stands still")],
)


def main(args: Args) -> int:
    return each_job(args, "job.pause", {})
