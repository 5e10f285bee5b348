"""`prune`: forget many finished jobs at once."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import VALUE_FORMAT, check, put_values
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

REASONS = ("exited", "signaled", "oom", "timeout", "stopped", "start-failed", "lost", "skipped")
FIELDS = ("jobs", "bytes", "dry_run")

VERB = Verb(
    "prune",
    "OPTIONS",
    "Forget finished jobs that meet every condition given, and what they wrote.",
    text="""
        Prints the ids of the jobs that are gone. Yours alone; root's prune is everybody's. The
        daemon does this by itself too, as [history] of its configuration says.
    """,
    groups={
        "Which": [
            Option("--older-than", "that ended so long ago, as 12h or 7d", "TIME"),
            Option("--keep", "but not the newest N of them", "N"),
            Option("--reason", f"that ended so: {', '.join(REASONS)}", "REASON", many=True),
            Option("-l --label", "that have this label", "KEY[=VALUE]", many=True),
            Option("-a --all", "every finished job"),
        ],
        "Options": [
            Option("-n --dry-run", "only say which"),
            Option("-q --quiet", "no summary on stderr"),
            Option("--json", "print JSON: the ids, and the bytes that they took"),
            VALUE_FORMAT,
        ],
    },
    examples=[
        ("prune --older-than 7d --dry-run", "which are older than a week"),
        ("prune --keep 100", "all but the newest hundred"),
        ("prune --reason start-failed --reason lost", "what never ran or got lost"),
    ],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"prune takes no argument {args.words[0]!r}; to forget one job: workerctl rm {args.words[0]}")
    params = _conditions(args)
    if not params and not args.has("all"):
        raise UsageError("prune what? Name a condition, as --older-than 7d, or write: workerctl prune --all")
    programs = check(args, FIELDS)
    dry = args.has("dry-run")
    with Connection() as connection:
        result = connection.call("job.prune", {**params, "dry_run": dry})
    if programs:
        put_values(args, {"jobs": result["jobs"], "bytes": result["bytes"], "dry_run": dry})
        return 0
    from workerctl.words import size

    stdio.put("".join(f"{job_id}\n" for job_id in result["jobs"]))
    if args.has("quiet"):
        return 0
    count = len(result["jobs"])
    stdio.note(
        f"{'would remove' if dry else 'removed'} {count} job{'' if count == 1 else 's'}, {size(result['bytes'])}"
    )
    return 0


def _conditions(args: Args) -> dict[str, Any]:
    from workerctl.limits import MAX_INT, count_of, duration_of
    from workerctl.spec import label_filter

    params: dict[str, Any] = {}
    if (age := args.text("older-than")) is not None:
        params["older_than"] = duration_of(age, "--older-than")
    if (keep := args.text("keep")) is not None:
        params["keep"] = 0 if keep == "0" else count_of(keep, "--keep", MAX_INT)
    if reasons := args.texts("reason"):
        unknown = [reason for reason in reasons if reason not in REASONS]
        if unknown:
            raise UsageError(f"--reason {unknown[0]}: choose {', '.join(REASONS[:-1])} or {REASONS[-1]}")
        params["reasons"] = reasons
    if labels := args.texts("label"):
        params["labels"] = label_filter(labels)
    return params
