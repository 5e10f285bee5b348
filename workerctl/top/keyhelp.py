"""What `h` shows in `top`. Pure."""

from __future__ import annotations

from workerctl.cells import wrapped

KEYS = (
    ("up, down, page up, page down, home, end", "choose a job"),
    ("o, enter", "its output, live; Ctrl-C there comes back"),
    ("s", "stop it (asks first); K kills it at once (asks first)"),
    ("p", "pause it, or let it go on"),
    ("c m d w a n", "sort by CPU, memory, disks, waiting, age, name; again: the other way round"),
    ("/", "show only jobs with these words in id, name, user, state or command"),
    ("escape", "show all again"),
    ("space", "a sample now"),
    ("q, Ctrl-C", "leave; the jobs run on"),
)
WORDS = (
    "CPU% is of one CPU. STALL% is the share of the time in which something in the job had to wait for CPU, "
    "memory or disks. The bar is memory against its limit."
)
COLUMN = 16
"""where what a key does begins"""
INDENT = 2


def lines(width: int) -> list[str]:
    """Broken between words, below themselves."""
    made = []
    for keys, does in KEYS:
        before = f"{'':{INDENT}}{keys:<{COLUMN - INDENT - 1}} "
        if len(before) > COLUMN:
            made += [f"{'':{INDENT}}{line}" for line in wrapped(f"{keys}: {does}", max(1, width - INDENT))]
            continue
        first, *rest = wrapped(does, max(1, width - COLUMN))
        made += [before + first, *(f"{'':{COLUMN}}{line}" for line in rest)]
    return [*made, "", *(f"{'':{INDENT}}{line}" for line in wrapped(WORDS, max(1, width - INDENT)))]
