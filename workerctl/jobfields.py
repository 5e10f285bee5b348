"""Fields of `--format` that a job's JSON does not have as such, for a person to read.

Over the complete JSON of a job, as `--json` shows it.
"""

from __future__ import annotations

import time

from workerctl import words
from workerctl.accounts import user_name
from workerctl.bars import memory_of
from workerctl.escape import quoted
from workerd.units import format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _now() -> int:
    return time.time_ns() // 1000


def _set(job: dict[str, Any]) -> dict[str, Any]:
    """As it is on the wire: what is not set is not there."""
    return {key: value for key, value in job.items() if value is not None}


def _memory(job: dict[str, Any]) -> str | None:
    used, _ = memory_of(job)
    return None if used is None else format_size(used)


def _limit(job: dict[str, Any]) -> str | None:
    _, limit = memory_of(job)
    return None if limit is None else format_size(limit)


def _cpu(job: dict[str, Any]) -> str | None:
    used = (job.get("usage") or {}).get("cpu_usec")
    return None if used is None else words.brief(used)


DERIVED: dict[str, Callable[[dict[str, Any]], object]] = {
    "name": lambda job: job["spec"].get("name"),
    "user": lambda job: user_name(job["uid"]),
    "command": lambda job: quoted(job["spec"]["argv"]),
    "status": lambda job: words.short_state(_set(job)),
    "why": lambda job: words.state(_set(job)),
    "age": lambda job: words.age(job, _now()),
    "cpu": _cpu,
    "memory": _memory,
    "limit": _limit,
    "labels": lambda job: ",".join(f"{key}={value}" for key, value in job["spec"].get("labels", {}).items()) or None,
}
