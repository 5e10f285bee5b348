"""`replay`: a job's output again, in the time it took."""

from __future__ import annotations

import time

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.verbs.out import painter_for, stream_of
from workerctl.wire import Connection

VERB = Verb(
    "replay",
    "[OPTIONS] ID",
    "Show what a job wrote as it came: with its pauses, stdout and stderr apart.",
    text="""
        All that is kept now, from the first byte on. On a terminal control sequences are
        made harmless, as `out` does; --raw sends all as it is.
    """,
    groups={
        "Options": [
            Option("--speed", "this many times as fast [1]", "N"),
            Option("--max-wait", "no pause longer than this, as 2s", "TIME"),
            Option("--stdout", "only what it wrote to stdout"),
            Option("--stderr", "only what it wrote to stderr"),
            Option("--raw", "the bytes as they are, on a terminal too"),
        ],
    },
    examples=[("replay --speed 10 --max-wait 1s build", "ten times as fast, and no long pauses")],
)


def main(args: Args) -> int:
    if len(args.words) != 1:
        raise UsageError("replay which job? Write: workerctl replay ID")
    speed, longest = _speed(args), _longest(args)
    painter = painter_for(args)
    with Connection() as connection, connection.open_log(args.words[0]) as log:
        last, due = 0, time.monotonic()
        now = log.extent()
        for _, stream, when, data in log.timed_pieces(now.start, now.end, stream_of(args)):
            due += min((when - last) / 1e9 / speed if last else 0.0, longest)
            last = when
            # Against the clock, so that delays in writing do not add up.
            time.sleep(max(0.0, due - time.monotonic()))
            if painter is None:
                stdio.write_all(stream, data)
            else:
                stdio.put(painter.paint(stream, data))
    if painter is not None:
        stdio.put(painter.finish())
    return 0


def _speed(args: Args) -> float:
    text = args.text("speed") or "1"
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 1e6:
        raise UsageError(f"--speed {text}: write a number from 0.001 to 1000000, as --speed 2")
    return speed


def _longest(args: Args) -> float:
    """Seconds."""
    text = args.text("max-wait")
    if text is None:
        return float("inf")
    from workerctl.limits import duration_of

    return duration_of(text, "--max-wait") / 1e6
