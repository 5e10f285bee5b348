"""`rename`: another name for a job, or none."""

from __future__ import annotations

from workerctl.options import Args, UsageError, Verb
from workerctl.shape import SHAPES, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "rename",
    "[OPTIONS] ID [NAME]",
    "Give a job another name; without NAME, take its name away.",
    text="""
        Of your jobs that are not finished no two can have the same name.
    """,
    groups={"Options": SHAPES},
    examples=[("rename k3v9 nightly", "from now on it is `nightly`"), ("rename nightly", "no name any more")],
)


def main(args: Args) -> int:
    if not 1 <= len(args.words) <= 2:
        raise UsageError("rename which job, and how? Write: workerctl rename ID NAME")
    check(args)
    params: dict[str, Any] = {"id": args.words[0]}
    if len(args.words) == 2:
        from workerctl.spec import job_name

        params["name"] = job_name(args.words[1])
    with Connection() as connection:
        job = connection.call("job.rename", params)
    put_jobs(args, [job], array=False)
    return 0
