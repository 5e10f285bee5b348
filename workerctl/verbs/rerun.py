"""`rerun`: the same again, as a new job."""

from __future__ import annotations

from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

VERB = Verb(
    "rerun",
    "[OPTIONS] ID",
    "Run a job again as it was, as a new job whose id is printed.",
    text="""
        Command, directory, limits, labels and environment are those of the old job, and so is
        the name, unless another job has it now. `status` of the new one says which it was.
    """,
    groups={"Options": [Option("--json", "print JSON: the id, state and warnings")]},
    examples=[("rerun k3v9q2m7xd", "once more"), ("wait $(workerctl rerun nightly)", "and wait for it")],
)


def main(args: Args) -> int:
    from workerctl.verbs.run import show_started

    if len(args.words) != 1:
        raise UsageError("rerun which job? Write: workerctl rerun ID")
    with Connection() as connection:
        result = connection.call("job.rerun", {"id": args.words[0]})
    show_started(result, as_json=args.has("json"))
    return 0
