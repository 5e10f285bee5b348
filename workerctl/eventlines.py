"""Events as people see them, a line each; and as programs do, one object or template a line."""

from __future__ import annotations

import time

from workerctl import stdio, words
from workerctl.shape import escaping, put_lines, put_objects
from workerctl.signals import name as signal_name

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from workerctl.options import Args

FIELDS = (
    *("kind", "time", "cursor", "id", "uid", "name", "state", "reason", "exit_code", "signal", "detail"),
    *("limit", "count", "restarts"),
)
"""of workerd.events.Event, which is not imported for this; a test holds them equal"""


class Printer:
    def __init__(self, args: Args) -> None:
        self._args = args
        self._owners = args.has("all")

    def put(self, events: Sequence[dict[str, Any]]) -> None:
        if not events:
            return
        if self._args.has("json"):
            put_objects([complete(event) for event in events])
        elif self._args.has("format"):
            put_lines(self._args, [complete(event) for event in events])
        else:
            escape = escaping()
            stdio.put("".join(escape(line(event, owner=self._owners)) + "\n" for event in events))


def complete(event: dict[str, Any]) -> dict[str, Any]:
    """Every field, whether it was sent or not."""
    return {**dict.fromkeys(FIELDS), "restarts": 0, **event}


def line(event: dict[str, Any], *, owner: bool) -> str:
    """Its time, the job, and what happened, in words."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"] // 1_000_000))
    if event["kind"] == "gap":
        return f"{when}  gap: {event['detail']}"
    whose = ""
    if owner:
        from workerctl.accounts import user_name

        whose = f"{user_name(event['uid'])}  "
    name = f" ({event['name']})" if event.get("name") else ""
    return f"{when}  {whose}{event['id']}{name}  {what(event)}"


def what(event: dict[str, Any]) -> str:
    kind, detail = event["kind"], event.get("detail")
    if kind == "state":
        return _state(event)
    if kind == "retry":
        return f"to be tried again ({event['restarts']}): {words.ending(event)}"
    if kind == "oom":
        count = event["count"]
        return f"out of memory: {count} process{'' if count == 1 else 'es'} killed by the kernel"
    if kind == "limit":
        which = "the memory limit" if event["limit"] == "memory" else "the limit of processes"
        return f"ran against {which}, {event['count']} time{'' if event['count'] == 1 else 's'} by now"
    if kind == "renamed":
        return f"renamed to {event['name']}, {detail}" if event.get("name") else f"without a name now, {detail}"
    return f"limits changed: {detail}" if kind == "updated" else str(kind)


def _state(event: dict[str, Any]) -> str:
    state, detail = str(event["state"]), event.get("detail")
    if state == "finished":
        if event.get("reason") == "start-failed" and detail:
            return f"finished: could not start: {detail}"
        return f"finished: {words.ending(event)}"
    if state == "stopping":
        why = "its time is over" if detail in ("timeout", "cpu-time") else detail
        sent = f"{signal_name(event['signal'])} sent" if event.get("signal") else None
        return ": ".join(["stopping", ", ".join(part for part in (why, sent) if part)])
    if state == "paused" and detail:
        return "paused: its time is over"
    return state
