"""`explain`: why a job ended as it did, or what holds it up, and what to change."""

from __future__ import annotations

import time

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import VALUE_FORMAT, check, put_values
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.verdict import Verdict

VERB = Verb(
    "explain",
    "[OPTIONS] ID",
    "Say why a job ended as it did, or what holds it up, and what to change.",
    text="""
        It weighs what the kernel counted (memory, CPU, processes, disks), what workerd did,
        the signal, and shows the last lines of stderr. A command line that it gives runs the
        job with your own environment.
    """,
    groups={"Options": [Option("--json", "as JSON: kind, what, facts, advice, command"), VALUE_FORMAT]},
    examples=[("explain build", "the job named build"), ("explain --json k3v | jq -r .command", "what to run instead")],
)

FIELDS = ("id", "kind", "what", "facts", "advice", "command")
LINES = 5
_WINDOW = 64 << 10


def main(args: Args) -> int:
    from workerctl.asked import default_output
    from workerctl.verdict import explain

    if len(args.words) != 1:
        raise UsageError("explain which job? Write: workerctl explain ID")
    programs = check(args, FIELDS)
    with Connection() as connection:
        job = connection.call("job.status", {"id": args.words[0]})
        stderr = _last_lines(connection, job["id"])
        default = default_output(connection)
    verdict = explain(job, time.time_ns() // 1000, stderr, default)
    if programs:
        put_values(args, {"id": job["id"], **verdict.as_json()})
    else:
        _show(job["id"], verdict)
    return 0


def _show(job_id: str, verdict: Verdict) -> None:
    """On a terminal words are not torn at its edge, but for the command: that stays one line to copy."""
    from workerctl.escape import visible_lines

    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if stdio.colour() else ("", "", "")
    lines = [f"{bold}{line}{plain}" for line in _wrapped(f"{job_id}: {verdict.what}.")]
    for fact in verdict.facts:
        lines += [f"{dim}{line}{plain}" for line in _wrapped(fact, 2)]
    if verdict.advice:
        lines += [f"{bold}{line}{plain}" for line in _wrapped(_advice(verdict))]
    if verdict.command:
        lines.append(f"  {visible_lines(verdict.command) if stdio.is_terminal(stdio.STDOUT) else verdict.command}")
    stdio.put("".join(f"{line}\n" for line in lines))


def _advice(verdict: Verdict) -> str:
    return f"What to do: {verdict.advice}{':' if verdict.command else '.'}"


def _wrapped(text: str, indent: int = 0) -> list[str]:
    space = " " * indent
    if not stdio.is_terminal(stdio.STDOUT):
        return [space + text]
    from workerctl.cells import wrapped
    from workerctl.escape import visible

    # The last column stays free: a terminal may go to the next line by itself there.
    return [space + line for line in wrapped(visible(text), max(20, stdio.width()) - indent - 1)]


def _last_lines(connection: Connection, job_id: str) -> list[str]:
    """Of its stderr, made harmless for a terminal."""
    from base64 import b64decode

    from workerd.errors import WorkerError, WrongState

    try:
        end = connection.call("output.wait", {"id": job_id, "timeout": 0})["end"]
        params = {"id": job_id, "offset": max(0, end - _WINDOW), "length": _WINDOW, "stream": 2}
        data = b64decode(connection.call("output.read", params)["data"])
    except WrongState:
        return []  # it never ran
    except WorkerError as error:
        return [f"(cannot be read: {error})"]
    text = data.decode(errors="replace")
    lines = [line for line in text.split("\n") if line.strip()][-LINES:]
    return ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)[:200] for line in lines]
