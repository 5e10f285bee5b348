"""`status`: all about one job or a few."""

from __future__ import annotations

from workerctl.each import call_each
from workerctl.options import Args, UsageError, Verb
from workerctl.shape import SHAPES, check, put_jobs
from workerctl.wire import Connection

VERB = Verb(
    "status",
    "[OPTIONS] ID…",
    "Show all about a job: its state and why, its limits, what it used.",
    groups={"Options": SHAPES},
    examples=[
        ("status build", "the job named build"),
        ("status --format {exit_code} k3v", "one field; the id may be shortened"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("the status of which job? Write: workerctl status ID…, or workerctl ps for all")
    check(args)
    with Connection() as connection:
        jobs, code = call_each(connection, "job.status", [{"id": job_id} for job_id in args.words])
    if not put_jobs(args, jobs, array=len(args.words) != 1):
        from workerctl.render import draw, job_panel

        for job in jobs:
            draw(job_panel(job))
    return code
