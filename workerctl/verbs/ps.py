"""`ps`: the jobs, one a line."""

from __future__ import annotations

from workerctl import stdio
from workerctl.listing import list_jobs
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

VERB = Verb(
    "ps",
    "[OPTIONS]",
    "List jobs, the newest first: those that live, unless -a says all.",
    groups={
        "Options": [
            Option("-a --all", "finished jobs too"),
            Option("-l --label", "only jobs that have this label", "KEY[=VALUE]", many=True),
            Option("-q --quiet", "ids only, one a line"),
            Option("--json", "an array of all there is to know of each"),
        ],
    },
    examples=[
        ("ps -a", "what runs and what ran"),
        ("stop $(workerctl ps -q)", "stop them all"),
        ("ps -a --json | jq '.[] | select(.reason == \"oom\") | .id'", "which ran out of memory"),
    ],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"ps takes no argument {args.words[0]!r}; for one job: workerctl status {args.words[0]}")
    params: dict[str, object] = {"all": True} if args.has("all") else {}
    if labels := args.texts("label"):
        from workerctl.spec import label_filter

        params["labels"] = label_filter(labels)
    with Connection() as connection:
        jobs = list_jobs(connection, **params)
    if args.has("quiet"):
        stdio.put("".join(f"{job['id']}\n" for job in jobs))
    elif args.has("json"):
        from workerctl.complete import complete_job

        stdio.put_json([complete_job(job) for job in jobs])
    else:
        from workerctl.render import draw, job_table

        draw(job_table(jobs))
    return 0
