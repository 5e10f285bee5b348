"""Signals by name or number, as people write them: Linux's numbers, for there the jobs are."""

from __future__ import annotations

import sys

from workerctl.options import UsageError

ELSEWHERE = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
"""signal(7), from 1 on: for clients whose own numbers are others"""


def known() -> dict[str, int]:
    """By name."""
    if sys.platform != "linux":
        return {f"SIG{one}": number for number, one in enumerate(ELSEWHERE.split(), 1)}
    import signal

    # The first of two names of one number is the usual one.
    return {name: int(number) for name, number in signal.Signals.__members__.items()}


def number(text: str, option: str) -> int:
    """TERM, SIGTERM, sigterm or 15 → 15. Raises UsageError, which names `option`."""
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    name = text.upper()
    if (found := known().get(name if name.startswith("SIG") else "SIG" + name)) is not None:
        return found
    raise UsageError(f"{option} {text}: no such signal; write TERM, SIGTERM or 15 (all of them: kill -l)")


def name(number: int) -> str:
    """15 → SIGTERM; a number without a name as it is."""
    names = [one for one, its in known().items() if its == number]
    return names[0] if names else f"signal {number}"
