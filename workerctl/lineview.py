"""Lines with their times: before each for people, as JSON for programs."""

from __future__ import annotations

from workerctl import moments, plainjson
from workerd.output import STDERR

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from workerctl.escape import Painter


def stamped(painter: Painter | None, *, utc: bool) -> Callable[[int, int, bytes], bytes]:
    """One line with its time before it; painted for a terminal where there is a painter."""

    def show(stream: int, time: int, line: bytes) -> bytes:
        line = line if line.endswith(b"\n") else line + b"\n"
        stamp = moments.shown(time, utc=utc).encode() + b" "
        if painter is None:
            return stamp + line
        from workerctl import stdio

        return stamp + painter.paint(stream, line, final=True).encode(stdio.encoding(), "backslashreplace")

    return show


def fields(stream: int, time: int, line: bytes) -> dict[str, Any]:
    """A line as JSON has it: `data`, or `base64` where it is no UTF-8."""
    made: dict[str, Any] = {"time": time // 1000, "stream": "stderr" if stream == STDERR else "stdout"}
    try:
        return {**made, "data": line.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {**made, "base64": b64encode(line).decode()}


def as_json(*, terminal: bool) -> Callable[[int, int, bytes], bytes]:
    """One JSON object a line; on a terminal in ASCII alone, where escapes stay text."""
    import json

    encode = (lambda value: json.dumps(value).encode()) if terminal else plainjson.dumps
    return lambda stream, time, line: encode(fields(stream, time, line)) + b"\n"
