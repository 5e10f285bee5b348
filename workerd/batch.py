"""The answers to a batch (JSON-RPC 2.0, part 6): one array, once all are there.

Where all members were notifications there is no answer at all.
"""

from __future__ import annotations

from collections.abc import Callable


class Batch:
    """`send` is given the line, once."""

    def __init__(self, members: int, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._open = members
        self._lines: list[bytes] = []

    def add(self, line: bytes | None) -> None:
        """One member's answer; None: it was a notification."""
        self._open -= 1
        if line is not None:
            self._lines.append(line.rstrip(b"\n"))
        if self._open == 0 and self._lines:
            self._send(b"[" + b",".join(self._lines) + b"]\n")
