"""What jobs use by the second: two samples of their counters, and the time between.

A job that was not there before, or whose counters went back (it was tried again), has
no rates yet: None, never 0.
"""

from __future__ import annotations

from workerctl.bars import memory_of

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

COUNTERS = {
    "cpu_usec": "cpu_percent",
    "io_read_bytes": "read_bps",
    "io_write_bytes": "write_bps",
    "cpu_pressure_usec": "cpu_stall_percent",
    "memory_pressure_usec": "memory_stall_percent",
    "io_pressure_usec": "io_stall_percent",
}
"""counter in a job's usage → name of its rate; of microseconds it is a percentage"""


class Rates:
    """Feed it samples; each gives a row for each job, as `stats --json` prints it."""

    def __init__(self) -> None:
        self._before: dict[str, dict[str, Any]] = {}
        self._at: float | None = None

    def feed(self, jobs: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
        """`now` is a clock's that nobody sets, in seconds."""
        passed = None if self._at is None else now - self._at
        rows = [self._row(job, passed) for job in jobs]
        self._before = {job["id"]: job.get("usage") or {} for job in jobs}
        self._at = now
        return rows

    def _row(self, job: dict[str, Any], passed: float | None) -> dict[str, Any]:
        usage = job.get("usage") or {}
        before = self._before.get(job["id"])
        used, limit = memory_of(job)
        row: dict[str, Any] = {
            "id": job["id"],
            "name": job["spec"].get("name"),
            "uid": job["uid"],
            "state": job["state"],
            "memory": used,
            "memory_limit": limit,
            "pids": usage.get("pids_current"),
            "cpu_usec": usage.get("cpu_usec"),
        }
        for counter, name in COUNTERS.items():
            row[name] = _rate(counter, usage, before, passed)
        return row


def _rate(counter: str, usage: dict[str, Any], before: dict[str, Any] | None, passed: float | None) -> float | None:
    new = usage.get(counter)
    old: int = (before or {}).get(counter, 0)
    if before is None or not passed or new is None or new < old:
        return None
    rate: float = (new - old) / passed
    return round(rate / 10_000, 2) if counter.endswith("usec") else round(rate)
