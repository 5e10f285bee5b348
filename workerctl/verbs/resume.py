"""`resume`: let paused jobs go on."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Verb
from workerctl.shape import SHAPES

VERB = Verb(
    "resume",
    "[OPTIONS] ID…",
    "Let a paused job go on.",
    groups={"Options": SHAPES},
    examples=[("resume build", "the job named build goes on where it was")],
)


def main(args: Args) -> int:
    return each_job(args, "job.resume", {})
