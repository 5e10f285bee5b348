"""`top`: the jobs of now, live, with keys."""

from __future__ import annotations

import os

from workerctl import stdio
from workerctl.filters import FILTER
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.rawterm import RawTerminal

VERB = Verb(
    "top",
    "[OPTIONS]",
    "Watch running jobs live: sort, filter, look at output, stop.",
    text="""
        Keys: c m d w a n sort by CPU, memory, disks, waiting, age, name; / filters; o shows a
        job's output; s stops it; p pauses it; h explains them all; q leaves. For programs there
        is `workerctl stats`.
    """,
    groups={"Options": [FILTER, Option("-i --interval", "time between samples [1s]", "TIME")]},
    examples=[("top", "what runs now"), ("top --filter user=ada -i 5s", "one user's, every five seconds")],
)


def main(args: Args) -> int:
    from workerctl.filters import Filter
    from workerctl.verbs.stats import interval_of

    if args.words:
        raise UsageError(f"top takes no argument {args.words[0]!r}; to see some jobs alone: --filter KEY=VALUE")
    wanted, interval = Filter(args.texts("filter")), interval_of(args)
    if not (stdio.is_terminal(stdio.STDIN) and stdio.is_terminal(stdio.STDOUT)):
        raise UsageError("top needs a terminal; for a pipe or a file: workerctl stats --json")
    if os.environ.get("TERM") == "dumb":
        raise UsageError("top needs a terminal that can place its cursor; TERM=dumb says that this cannot: see stats")
    if os.name != "posix":
        raise UsageError("top needs a terminal of Linux or macOS; elsewhere: workerctl stats")
    from workerctl.rawterm import Ended, RawTerminal, die_of
    from workerctl.top.live import Top
    from workerctl.top.screen import Screen

    local = not os.environ.get("WORKER_HOST")
    with Connection() as connection:
        top = Top(connection, wanted.params(), wanted.matches, interval, local=local)
        top.sample()
        try:
            with RawTerminal(stdio.STDIN) as terminal, Screen() as screen:
                top.run(terminal, screen, lambda job_id: _output(terminal, job_id))
        except Ended as signal:
            die_of(signal.number)
    return 0


def _output(terminal: RawTerminal, job_id: str) -> None:
    """`out -f` has the terminal until its end, or Ctrl-C; then a key comes back."""
    import subprocess
    import sys

    from workerctl.top.screen import ENTER, LEAVE

    stdio.put(LEAVE)
    with terminal.lent():
        isolated = ["-I"] if sys.flags.isolated else []
        command = [sys.executable, *isolated, "-m", "workerctl", "out", "--tail", "200", "--follow", job_id]
        subprocess.run(command, check=False)
        stdio.put("\n[press Enter to go back]\n")
        os.read(stdio.STDIN, 4096)
    stdio.put(ENTER)
