"""`rename`: another name for a job, or with --remove none."""

from __future__ import annotations

from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import SHAPES, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "rename",
    "[OPTIONS] ID [NAME]",
    "Give a job another name, or with --remove none.",
    text="""
        Of your jobs that are not finished no two can have the same name.
    """,
    groups={"Options": [Option("--remove", "take its name away: then the id alone means it"), *SHAPES]},
    examples=[
        ("rename k3v9 nightly", "from now on it is `nightly`"),
        ("rename --remove nightly", "no name any more"),
    ],
)


def main(args: Args) -> int:
    _check_words(args)
    check(args)
    params: dict[str, Any] = {"id": args.words[0]}
    if len(args.words) == 2:
        from workerctl.spec import job_name

        params["name"] = job_name(args.words[1])
    with Connection() as connection:
        job = connection.call("job.rename", params)
    put_jobs(args, [job], array=False)
    return 0


def _check_words(args: Args) -> None:
    if not args.words:
        raise UsageError("rename which job, and how? Write: workerctl rename ID NAME")
    job, count = args.words[0], len(args.words)
    if args.has("remove") and count > 1:
        raise UsageError(f"--remove leaves no name: leave out {args.words[1]!r}")
    if not args.has("remove") and count == 1:
        raise UsageError(
            f"rename {job} to what? Write: workerctl rename {job} NAME; to take its name away: "
            f"workerctl rename --remove {job}"
        )
    if count > 2:
        raise UsageError(f"rename takes one job and one name, and {args.words[2]!r} is more")
