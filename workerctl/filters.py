"""`--filter KEY=VALUE`: which jobs are meant.

Values of one key are alternatives, different keys (and labels) must all hold. State
and label are the daemon's to look for; the rest is looked for here.
"""

from __future__ import annotations

from workerctl.options import Option, UsageError, did_you_mean

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

STATES = ("queued", "starting", "running", "paused", "stopping", "finished")
REASONS = ("exited", "signaled", "oom", "timeout", "stopped", "start-failed", "lost", "skipped")
KEYS = ("id", "name", "user", "state", "reason", "exit-code", "label", "command")
FINISHED_ONLY = ("reason", "exit-code")

FILTER = Option("--filter", f"only jobs that match, by {', '.join(KEYS)}; see `help filter`", "KEY=VALUE", many=True)


class Filter:
    """Raises UsageError for a filter that could never match."""

    def __init__(self, texts: list[str]) -> None:
        self._wanted: dict[str, list[str]] = {}
        for text in texts:
            key, value = _checked(text)
            self._wanted.setdefault(key, []).append(value)

    def params(self) -> dict[str, Any]:
        """What job.list can look for itself."""
        params: dict[str, Any] = {}
        if states := self._wanted.get("state"):
            params["states"] = states
        elif any(key in self._wanted for key in FINISHED_ONLY):
            params["states"] = ["finished"]
        if labels := self._wanted.get("label"):
            from workerctl.spec import label_filter

            params["labels"] = label_filter(labels)
        return params

    def matches(self, job: dict[str, Any]) -> bool:
        return all(
            any(_matches(job, key, value) for value in values)
            for key, values in self._wanted.items()
            if key not in ("state", "label")
        )


def _checked(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if key not in KEYS:
        near = did_you_mean(key, KEYS) or f"; choose {', '.join(KEYS[:-1])} or {KEYS[-1]}"
        raise UsageError(f"--filter {text}: there is no key {key!r}{near}")
    if not equals or not value:
        raise UsageError(f"--filter {text}: write {key}=VALUE")
    for name, known in (("state", STATES), ("reason", REASONS)):
        if key == name and value not in known:
            raise UsageError(f"--filter {text}: choose {', '.join(known[:-1])} or {known[-1]}")
    if key == "exit-code" and not (value.isascii() and value.isdecimal()):
        raise UsageError(f"--filter {text}: an exit code is a number, as exit-code=1")
    return key, value


def _matches(job: dict[str, Any], key: str, value: str) -> bool:
    if key == "id":
        return str(job["id"]).startswith(value)
    if key == "reason":
        return bool(job.get("reason") == value)
    if key == "exit-code":
        return bool(job.get("exit_code") == int(value))
    if key == "user":
        from workerctl.accounts import user_name

        return value in (str(job["uid"]), user_name(job["uid"]))
    from fnmatch import fnmatchcase

    if key == "name":
        return fnmatchcase(job["spec"].get("name") or "", value)
    command = " ".join(job["spec"]["argv"])
    return fnmatchcase(command, value) if any(char in value for char in "*?[") else value in command
