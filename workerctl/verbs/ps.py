"""`ps`: the jobs, one a line."""

from __future__ import annotations

from workerctl import stdio
from workerctl.filters import FILTER
from workerctl.listing import list_jobs
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import FORMAT, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "ps",
    "[OPTIONS]",
    "List jobs, the newest first: those that live, unless -a or a filter says others.",
    groups={
        "Which": [
            Option("-a --all", "finished jobs too"),
            FILTER,
            Option("-l --label", "only jobs that have this label", "KEY[=VALUE]", many=True),
            Option("-n --last", "the newest N alone, finished or not", "N"),
        ],
        "How": [
            Option("-q --quiet", "ids only, one a line"),
            Option("--no-trunc", "cut nothing off on a narrow terminal"),
            Option("--json", "an array of all there is to know of each"),
            FORMAT,
        ],
    },
    examples=[
        ("ps -a", "what runs and what ran"),
        ("ps --filter reason=oom --filter user=ada", "whose memory did not suffice"),
        ("stop $(workerctl ps -q)", "stop them all"),
        ("ps -a --format {id}:{exit_code}", "a line for each, as you like it"),
    ],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"ps takes no argument {args.words[0]!r}; for one job: workerctl status {args.words[0]}")
    programs = check(args)
    if args.has("quiet") and programs:
        raise UsageError("--quiet prints ids alone: leave out --json and --format")
    jobs = chosen(args)
    if args.has("quiet"):
        stdio.put("".join(f"{job['id']}\n" for job in jobs))
    elif not put_jobs(args, jobs, array=True):
        from workerctl.jobtable import draw_jobs

        draw_jobs(jobs, whole=args.has("no-trunc"))
    return 0


def chosen(args: Args) -> list[dict[str, Any]]:
    """The jobs that the options mean, newest first."""
    params: dict[str, Any] = {"all": True} if args.has("all") or args.has("last") else {}
    if labels := args.texts("label"):
        from workerctl.spec import label_filter

        params["labels"] = label_filter(labels)
    most = _count(args)
    if filters := args.texts("filter"):
        from workerctl.filters import Filter

        wanted = Filter(filters)
        more = wanted.params()
        params = {**params, **more, "labels": {**params.get("labels", {}), **more.get("labels", {})}}
        with Connection() as connection:
            jobs = [job for job in list_jobs(connection, **params) if wanted.matches(job)]
    else:
        with Connection() as connection:
            jobs = list_jobs(connection, most=most, **params)
    return jobs[:most]


def _count(args: Args) -> int | None:
    text = args.text("last")
    if text is None:
        return None
    from workerctl.limits import MAX_INT, count_of

    return count_of(text, "--last", MAX_INT)
