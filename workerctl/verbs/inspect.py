"""`inspect`: all there is to know of jobs, for programs; or a job as another program's command."""

from __future__ import annotations

from workerctl import stdio
from workerctl.asked import asked, default_output
from workerctl.each import call_each
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import FORMAT, check, put_jobs
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

VERB = Verb(
    "inspect",
    "[OPTIONS] ID…",
    "Show all there is to know of jobs as JSON, an array; `status` is for people.",
    text="""
        Beside the fields that --json has everywhere: user and why in words, and command_line,
        the `workerctl run` that asks for the same.

        --as prints what would run the job's command elsewhere, as alike as that can, and on
        stderr what there is no word for there.
    """,
    groups={
        "Options": [
            Option("--as", "as a command of systemd-run or podman", "PROGRAM"),
            Option("--json", "JSON, which it is anyway; with --as an object: command, without"),
            FORMAT,
        ]
    },
    examples=[
        ("inspect build", "the job named build"),
        ("inspect --as podman build", "and how podman would run it"),
        ("inspect --format {usage.memory_peak} j1 j2", "a field of each"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("inspect which job? Write: workerctl inspect ID…")
    check(args)
    program = args.text("as")
    if program is not None:
        from workerctl.equivalent import PROGRAMS

        if program not in PROGRAMS:
            raise UsageError(f"--as {program}: choose {' or '.join(PROGRAMS)}")
        if args.has("format"):
            raise UsageError("--as prints a command: leave out --format")
    with Connection() as connection:
        jobs, code = call_each(connection, "job.status", [{"id": job_id} for job_id in args.words])
        default = 0 if args.has("format") else default_output(connection)
    if program is not None:
        _translated(args, [{**job, "spec": asked(job["spec"], default)} for job in jobs], program)
    elif args.has("format"):
        put_jobs(args, jobs, array=True)
    else:
        stdio.put_json([_inspected(job, default) for job in jobs])
    return code


def _inspected(job: dict[str, Any], default: int) -> dict[str, Any]:
    from workerctl import words
    from workerctl.accounts import user_name
    from workerctl.commandline import command_line
    from workerctl.complete import complete_job

    line = command_line(asked(job["spec"], default))
    more = {"user": user_name(job["uid"]), "why": words.state(job), "command_line": line}
    return {**complete_job(job), **more}


def _translated(args: Args, jobs: Sequence[dict[str, Any]], program: str) -> None:
    from workerctl.complete import complete_job
    from workerctl.equivalent import translate

    done = [translate(complete_job(job), program) for job in jobs]
    if args.has("json"):
        shown = [{"command": one.words, "without": one.without} for one in done]
        stdio.put_json(shown if len(args.words) != 1 else shown[0])
        return
    import shlex

    from workerctl.escape import visible

    clean = visible if stdio.is_terminal(stdio.STDOUT) else str
    for one in done:
        stdio.put(clean(shlex.join(one.words)) + "\n")
        for sentence in one.without:
            stdio.note(sentence)
