"""The policy's totals, as far as they are held by something else than sums of limits:
by the user's cgroup, and by the disk. Pure.

A user's cgroup holds the totals whatever the jobs in it asked for; admission sums what
they asked. Stored output is what the finished jobs' files take on the disk and, for a
job that may still write, all that it may keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from workerd.config import Totals
from workerd.errors import PolicyExceeded
from workerd.job import Job, Limits
from workerd.units import format_size

_CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}


class Stored(NamedTuple):
    """Bytes on the disk of finished jobs' output: the caller's, and everybody's."""

    user: int = 0
    machine: int = 0


def check_output(asked: int, total: int | None, unfinished: Iterable[Job], stored: int, whose: str) -> None:
    """`asked` are the bytes that a new job may keep, `unfinished` the jobs that count
    to the same total. Raises PolicyExceeded."""
    if total is None:
        return
    if asked > total:
        message = f"max-output {format_size(asked)} is more than {whose} total of {format_size(total)}"
        raise PolicyExceeded(message, field="output")
    left = total - stored - sum(job.spec.max_output or 0 for job in unfinished)
    if asked > left:
        raise PolicyExceeded(
            f"max-output {format_size(asked)} is more than the {format_size(max(0, left))} left of {whose} "
            f"total of {format_size(total)}: remove finished jobs, or keep less (--max-output)",
            field="output",
        )


def default_output(default: int | None, totals: Iterable[Totals]) -> int | None:
    """Of output kept by a job that does not say: within the totals."""
    bounds = [bound for bound in (default, *(total.output for total in totals)) if bound is not None]
    return min(bounds, default=None)


def cgroup_limits(totals: Totals, jobs: int, available: frozenset[str]) -> Limits:
    """For the user's cgroup while it holds so many jobs, each of which has a PID 1 that
    is ours. A total whose controller the host lacks is held at admission alone."""
    held = {name: getattr(totals, name) for name, controller in _CONTROLLERS.items() if controller in available}
    if held.get("pids") is not None:
        held["pids"] += jobs
    return Limits(**held)


def unheld(totals: Iterable[Totals], available: frozenset[str]) -> list[str]:
    """The totals among these that no controller of the host's can hold."""
    wanted = {name for each in totals for name in _CONTROLLERS if getattr(each, name) is not None}
    return sorted(name for name in wanted if _CONTROLLERS[name] not in available)
