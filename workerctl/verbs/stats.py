"""`stats`: what running jobs use by the second."""

from __future__ import annotations

import os
import time

from workerctl import stdio
from workerctl.filters import FILTER
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.rates import Rates
from workerctl.shape import FORMAT, check, put_lines, put_objects
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "stats",
    "[OPTIONS] [ID…]",
    "Show what running jobs use by the second: CPU, memory, disks, waiting.",
    text="""
        Goes on until Ctrl-C; with IDs, until those jobs have ended. In a pipe without --json or
        --format it shows one sample.

        CPU% is of one CPU: two busy ones are 200. STALL% is the share of the time in which
        something in the job had to wait for CPU, memory or disks, the worst of the three.

        --json prints one object a line for each job and sample: id, name, uid, state, time,
        memory, memory_limit (bytes), pids, cpu_usec, cpu_percent, read_bps, write_bps,
        cpu_stall_percent, memory_stall_percent, io_stall_percent; null is not known.
    """,
    groups={
        "Options": [
            FILTER,
            Option("-i --interval", "time between samples [1s]", "TIME"),
            Option("--no-stream", "one sample, of one interval"),
            Option("-n --count", "N samples", "N"),
            Option("--json", "an object a line for each job"),
            FORMAT,
        ],
    },
    examples=[
        ("stats", "all of yours that run, each second"),
        ("stats --no-stream --json | jq .memory", "one sample, for a program"),
        ("stats --format {id}:{cpu_percent} build", "a line each second, while it lives"),
    ],
)

TITLES = ("ID", "NAME", "USER", "CPU%", "BAR", "MEMORY", "PIDS", "READ/s", "WRITE/s", "STALL%")
FIRST_TO_GO = ("BAR", "USER", "STALL%", "READ/s", "WRITE/s", "PIDS", "NAME")
MIN_INTERVAL = 0.1


def main(args: Args) -> int:
    programs = check(args)
    interval, left = interval_of(args), _count(args, once=not programs and not stdio.is_terminal(stdio.STDOUT))
    rates = Rates()
    with Connection() as connection:
        rates.feed(_jobs(connection, args), time.monotonic())
        due = time.monotonic()
        while left:
            due = max(due + interval, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
            jobs = _jobs(connection, args)
            if args.words and not jobs:
                return 0
            _show(args, rates.feed(jobs, time.monotonic()), programs=programs)
            left -= 1
    return 0


def interval_of(args: Args) -> float:
    """Seconds."""
    text = args.text("interval")
    if text is None:
        return 1.0
    from workerctl.limits import duration_of

    seconds = duration_of(text, "--interval") / 1e6
    if seconds < MIN_INTERVAL:
        raise UsageError(f"--interval {text}: {MIN_INTERVAL} seconds are the least")
    return seconds


def _count(args: Args, *, once: bool) -> int:
    """Samples; -1 for no end."""
    if (text := args.text("count")) is not None:
        from workerctl.limits import MAX_INT, count_of

        if args.has("no-stream"):
            raise UsageError("--no-stream is --count 1: give one of them")
        return count_of(text, "--count", MAX_INT)
    return 1 if once or args.has("no-stream") else -1


def _jobs(connection: Connection, args: Args) -> list[dict[str, Any]]:
    """Those that are meant and live."""
    from workerctl.filters import Filter
    from workerctl.listing import list_jobs

    wanted = Filter(args.texts("filter"))
    if args.words:
        from workerctl.each import call_each

        found, _ = call_each(connection, "job.status", [{"id": job_id} for job_id in args.words])
    else:
        found = list_jobs(connection, **wanted.params())
    return [job for job in found if job["state"] not in ("finished", "queued") and wanted.matches(job)]


def _show(args: Args, rows: list[dict[str, Any]], *, programs: bool) -> None:
    if programs:
        now = time.time_ns() // 1000
        timed = [{"time": now, **row} for row in rows]
        if args.has("format"):
            put_lines(args, timed)
        else:
            put_objects(timed)
        return
    from workerctl.accounts import user_name
    from workerctl.statstable import figures

    shown = [figures(row, user_name(row["uid"])) for row in rows]
    if not stdio.is_terminal(stdio.STDOUT) or args.has("no-stream") or os.environ.get("TERM") == "dumb":
        stdio.put("".join(f"{line}\n" for line in _table(shown)))
        return
    # Over what is there, line by line, and no more than fits: nothing flickers.
    height = max(2, os.get_terminal_size(stdio.STDOUT).lines or 24)
    stdio.put("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in _table(shown)[: height - 1]) + "\x1b[J")


def _table(rows: list[dict[str, str]]) -> list[str]:
    from workerctl.statstable import lines

    terminal = stdio.is_terminal(stdio.STDOUT)
    titles = [title for title in TITLES if title != "BAR" or (terminal and any(row["BAR"] for row in rows))]
    if not terminal:
        return lines(rows, titles, {}, "")
    from workerctl.cells import columns

    width = stdio.width()
    dots = "…" if stdio.is_unicode() else ""
    for title in ("", *FIRST_TO_GO):
        titles = [name for name in titles if name != title]
        table = lines(rows, titles, {"NAME": 20, "USER": 16}, dots)
        if max(map(columns, table)) <= width:
            break
    return [f"\x1b[1m{table[0]}\x1b[0m", *table[1:]] if stdio.colour() else table
