"""A job as a command line of other programs: what says the same there, and what has no word.

One module each, with `translate(job) -> Translation`. Pure, over the complete JSON of
a job. What must hold: whatever a spec asks for is in the command or among `without`.
"""

from __future__ import annotations

from workerctl.options import UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

PROGRAMS = ("systemd-run", "podman")


class Translation:
    """`words` are the command's; `without` says, a sentence each, what it does not do."""

    __slots__ = ("without", "words")

    def __init__(self, words: list[str], without: list[str]) -> None:
        self.words = words
        self.without = without


def translate(job: dict[str, Any], program: str) -> Translation:
    """Raises UsageError for a program that is not known."""
    if program == "systemd-run":
        from workerctl.equivalent import systemdrun

        return systemdrun.translate(job)
    if program == "podman":
        from workerctl.equivalent import podman

        return podman.translate(job)
    raise UsageError(f"--as {program}: choose {' or '.join(PROGRAMS)}")


def start_time(job: dict[str, Any]) -> int | None:
    """That was asked for, in microseconds since the epoch; not that of a next try."""
    again = job["restarts"] or job["start_attempts"]
    return None if again else job["start_at"]


def scarce(job: dict[str, Any], program: str) -> list[str]:
    """What neither program has."""
    spec = job["spec"]
    without = [
        f"{program} waits for the end of nothing, and knows of no outcome: start it when {condition['id']} has ended"
        f"{'' if condition['outcome'] == 'any' else ' so'} (--after)"
        for condition in job["after"]
    ]
    if spec.get("cpu_time"):
        without.append(f"{program} has no limit on the CPU time of all processes together (--cpu-time)")
    if spec.get("timeout") and spec.get("on_timeout") == "pause":
        without.append(f"{program} stops a job whose time is over, and cannot pause it (--on-timeout pause)")
    if spec.get("priority"):
        without.append(f"{program} has no queue, so nothing to be of --priority {spec['priority']} in")
    without.append("its environment is not shown here: pass on what the command needs")
    return without


def whole(number: float) -> str:
    return f"{number:g}"


def seconds(usec: int) -> str:
    return f"{usec / 1_000_000:g}"
