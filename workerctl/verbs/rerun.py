"""`rerun`: the same again, as a new job."""

from __future__ import annotations

from workerctl.options import Args, Option, UsageError, Verb
from workerctl.verbs.run import STARTED, STARTED_FORMAT, put_started, shower
from workerctl.wire import Connection

FIELDS = STARTED

VERB = Verb(
    "rerun",
    "[OPTIONS] ID",
    "Run a job again as it was, as a new job whose id is printed.",
    text="""
        Command, directory, limits, labels and environment are those of the old job, and so is
        the name, unless another job has it now. `status` of the new one says which it was.
    """,
    groups={"Options": [Option("--json", "print JSON: the id, state and warnings"), STARTED_FORMAT]},
    examples=[("rerun k3v9q2m7xd", "once more"), ("wait $(workerctl rerun nightly)", "and wait for it")],
)


def main(args: Args) -> int:
    if len(args.words) != 1:
        raise UsageError("rerun which job? Write: workerctl rerun ID")
    show = shower(args, whole=False)
    with Connection() as connection:
        result = connection.call("job.rerun", {"id": args.words[0]})
    put_started(result, show)
    return 0
