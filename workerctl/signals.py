"""Signals by name or number, as people write them."""

from __future__ import annotations

import signal

from workerctl.options import UsageError


def number(text: str, option: str) -> int:
    """TERM, SIGTERM, sigterm or 15 → 15. Raises UsageError, which names `option`."""
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    name = text.upper()
    found = getattr(signal, name if name.startswith("SIG") else "SIG" + name, None)
    if isinstance(found, signal.Signals):
        return int(found)
    raise UsageError(f"{option} {text}: no such signal; write TERM, SIGTERM or 15 (all of them: kill -l)")


def name(number: int) -> str:
    """15 → SIGTERM; a number without a name as it is."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
