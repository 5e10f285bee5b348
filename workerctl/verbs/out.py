"""`out`: what a job wrote."""

from __future__ import annotations

from workerctl import stdio
from workerctl.follow import Gaps, bring, copy_whole, lined, only, painted, pump
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection
from workerd.output import STDERR, STDOUT, Log, tail_offset

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from workerctl.escape import Painter
    from workerctl.follow import Copy

VERB = Verb(
    "out",
    "[OPTIONS] ID",
    "Show what a job wrote to stdout and stderr, in the order it came.",
    text="""
        Into a pipe or a file go the job's bytes and nothing else. On a terminal control
        sequences are made visible and harmless, and stderr is red; --raw sends all as it is.
        With -t and --json each stream's lines are put together, and come as they end.
    """,
    groups={
        "What to show": [
            Option("-f --follow", "go on with what it writes, until its output ends"),
            Option("--stdout", "only what it wrote to stdout"),
            Option("--stderr", "only what it wrote to stderr"),
            Option("-n --tail", "begin with the last N lines", "N"),
            Option("--since", "only what came at this time or later: 10m (ago), 14:30, 2026-01-31T14:30Z", "TIME"),
            Option("--until", "only what came before this time; with -f, follow until then", "TIME"),
        ],
        "How": [
            Option("-t --timestamps", "before each line the time of its first byte"),
            Option("--utc", "times in UTC, not local"),
            Option("--json", "a JSON object a line: time (microseconds), stream, and data, or base64 if no UTF-8"),
            Option("--raw", "the bytes as they are, on a terminal too"),
        ],
    },
    examples=[
        ("out k3v9q2m7xd", "all that is kept"),
        ("out -f --tail 20 build", "the last 20 lines of the job named build, and on"),
        ("out -t --since 10m build", "the last ten minutes, with times"),
        ("out --stderr build > errors.txt", "exactly the bytes of its stderr"),
    ],
)


def main(args: Args) -> int:
    if len(args.words) != 1:
        raise UsageError("the output of which job? Write: workerctl out ID")
    job_id = args.words[0]
    lines, since, until = _count(args), _moment(args, "since"), _moment(args, "until")
    with Connection() as connection, connection.open_log(job_id) as log:
        start = 0 if since is None else log.offset_at(since)
        if lines is not None:
            stop = log.end() if until is None else log.offset_at(until)
            start = tail_offset(log, lines, stream_of(args), start, stop)
        _show(connection, job_id, log, start, until, args)
        if lost := log.header().lost:
            stdio.note(f"{lost} bytes of output could not be stored: the disk was full, or cannot release the oldest")
    return 0


def _show(connection: Connection, job_id: str, log: Log, start: int, until: int | None, args: Args) -> None:
    copy, finish = _copy(args)
    if args.has("follow"):
        pump(connection, job_id, log, start, copy, until)
    else:
        gaps = Gaps()
        bring(log, start, copy, gaps, log.extent(), until)
        gaps.tell()
    finish()


def _copy(args: Args) -> tuple[Copy, Callable[[], None]]:
    """How the output is brought out, and what is to be done at its end."""
    stream = stream_of(args)
    paint = painter_for(args)
    if args.has("json") or args.has("timestamps"):
        from workerctl.lineview import as_json, stamped

        if args.has("json"):
            return lined(as_json(terminal=stdio.is_terminal(stdio.STDOUT)), stream)
        return lined(stamped(paint, utc=args.has("utc")), stream)
    if paint is not None:
        return painted(paint, stream), lambda: stdio.put(paint.finish())
    return only(stream) if stream else copy_whole, lambda: None


def painter_for(args: Args) -> Painter | None:
    """Where a person reads along, and did not ask for the bytes as they are."""
    if not stdio.is_terminal(stdio.STDOUT) or args.has("raw"):
        return None
    from workerctl.escape import Painter

    return Painter(colour=stdio.colour())


def stream_of(args: Args) -> int | None:
    if args.has("stdout") == args.has("stderr"):
        return None
    return STDOUT if args.has("stdout") else STDERR


def _count(args: Args) -> int | None:
    text = args.text("tail")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"--tail {text}: write how many lines, as --tail 20")
    return int(text)


def _moment(args: Args, option: str) -> int | None:
    text = args.text(option)
    if text is None:
        return None
    from workerctl.moments import moment_of

    return moment_of(text, f"--{option}")
