"""`resume`: let paused jobs go on."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.options import Args, Option, Verb

VERB = Verb(
    "resume",
    "[OPTIONS] ID…",
    "Let a paused job go on.",
    groups={"Options": [Option("--json", "print the job as JSON; an array where several were named")]},
    examples=[("resume build", "the job named build goes on where it was")],
)


def main(args: Args) -> int:
    return each_job(args, "job.resume", {})
