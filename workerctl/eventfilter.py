"""`events --filter KEY=VALUE`: which events are meant. As with jobs, values of one key are
alternatives, and different keys must all hold."""

from __future__ import annotations

from workerctl.filters import REASONS, STATES
from workerctl.options import UsageError, did_you_mean

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

KINDS = ("state", "retry", "oom", "limit", "renamed", "updated", "removed", "gap")
KEYS = ("kind", "state", "reason", "exit-code", "name", "user", "id")
_CHOICES = {"kind": KINDS, "state": STATES, "reason": REASONS}


class EventFilter:
    """Raises UsageError for a filter that could never match."""

    def __init__(self, texts: list[str]) -> None:
        self._wanted: dict[str, list[str]] = {}
        for text in texts:
            key, value = _checked(text)
            self._wanted.setdefault(key, []).append(value)

    def matches(self, event: dict[str, Any]) -> bool:
        """A gap always does: it may hide what was looked for."""
        if event["kind"] == "gap":
            return True
        return all(any(_matches(event, key, value) for value in values) for key, values in self._wanted.items())


def _checked(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if key not in KEYS:
        near = did_you_mean(key, KEYS) or f"; choose {', '.join(KEYS[:-1])} or {KEYS[-1]}"
        raise UsageError(f"--filter {text}: events have no key {key!r}{near}")
    if not equals or not value:
        raise UsageError(f"--filter {text}: write {key}=VALUE")
    if (known := _CHOICES.get(key)) and value not in known:
        raise UsageError(f"--filter {text}: choose {', '.join(known[:-1])} or {known[-1]}")
    if key == "exit-code" and not (value.isascii() and value.isdecimal()):
        raise UsageError(f"--filter {text}: an exit code is a number, as exit-code=1")
    return key, value


def _matches(event: dict[str, Any], key: str, value: str) -> bool:
    if key == "id":
        return str(event["id"]).startswith(value)
    if key == "exit-code":
        return bool(event.get("exit_code") == int(value))
    if key == "user":
        from workerctl.accounts import user_name

        return value in (str(event["uid"]), user_name(event["uid"]))
    if key == "name":
        from fnmatch import fnmatchcase

        return fnmatchcase(event.get("name") or "", value)
    return bool(event.get(key) == value)
