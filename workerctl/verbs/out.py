"""`out`: what a job wrote."""

from __future__ import annotations

from workerctl import stdio
from workerctl.follow import Gaps, bring, copy_whole, only, open_log, painted, pump
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection
from workerd.output import STDERR, STDOUT, Log, tail_offset

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.follow import Copy

VERB = Verb(
    "out",
    "[OPTIONS] ID",
    "Show what a job wrote to stdout and stderr, in the order it came.",
    text="""
        Into a pipe or a file go the job's bytes and nothing else. On a terminal control
        sequences are made visible and harmless, and stderr is red; --raw sends all as it is.
    """,
    groups={
        "What to show": [
            Option("-f --follow", "go on with what it writes, until its output ends"),
            Option("--stdout", "only what it wrote to stdout"),
            Option("--stderr", "only what it wrote to stderr"),
            Option("-n --tail", "begin with the last N lines", "N"),
            Option("--raw", "the bytes as they are, on a terminal too"),
        ],
    },
    examples=[
        ("out k3v9q2m7xd", "all that is kept"),
        ("out -f --tail 20 build", "the last 20 lines of the job named build, and on"),
        ("out --stderr build > errors.txt", "exactly the bytes of its stderr"),
    ],
)


def main(args: Args) -> int:
    if len(args.words) != 1:
        raise UsageError("the output of which job? Write: workerctl out ID")
    job_id = args.words[0]
    stream, lines = _stream(args), _lines(args)
    with Connection() as connection, open_log(connection, job_id) as log:
        start = 0 if lines is None else tail_offset(log, lines, stream, 0, log.end())
        _show(connection, job_id, log, start, stream, args)
        if lost := log.header().lost:
            stdio.note(f"{lost} bytes of output could not be stored: the disk was full")
    return 0


def _show(connection: Connection, job_id: str, log: Log, start: int, stream: int | None, args: Args) -> None:
    painter = None
    copy: Copy = only(stream) if stream else copy_whole
    if stdio.is_terminal(stdio.STDOUT) and not args.has("raw"):
        from workerctl.escape import Painter

        painter = Painter(colour=stdio.colour())
        copy = painted(painter, stream)
    if args.has("follow"):
        pump(connection, job_id, log, start, copy)
    else:
        gaps = Gaps()
        bring(log, start, copy, gaps)
        gaps.tell()
    if painter is not None:
        stdio.put(painter.finish())


def _stream(args: Args) -> int | None:
    if args.has("stdout") == args.has("stderr"):
        return None
    return STDOUT if args.has("stdout") else STDERR


def _lines(args: Args) -> int | None:
    text = args.text("tail")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"--tail {text}: write how many lines, as --tail 20")
    return int(text)
