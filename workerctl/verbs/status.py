"""`status`: all about one job or a few."""

from __future__ import annotations

from workerctl import stdio
from workerctl.each import call_each
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

VERB = Verb(
    "status",
    "[OPTIONS] ID…",
    "Show all about a job: its state and why, its limits, what it used.",
    groups={"Options": [Option("--json", "as JSON; an array where several are named")]},
    examples=[
        ("status build", "the job named build"),
        ("status --json k3v | jq .exit_code", "one field; the id may be shortened"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("the status of which job? Write: workerctl status ID…, or workerctl ps for all")
    with Connection() as connection:
        jobs, code = call_each(connection, "job.status", [{"id": job_id} for job_id in args.words])
    if args.has("json"):
        from workerctl.complete import complete_job

        shown = [complete_job(job) for job in jobs]
        stdio.put_json(shown[0] if len(args.words) == 1 else shown)
    else:
        from workerctl.render import draw, job_panel

        for job in jobs:
            draw(job_panel(job))
    return code
