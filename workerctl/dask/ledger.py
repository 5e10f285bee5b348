"""Which command was begun where, and what became of it. Pure: no Dask, no clock.

Dask runs a task again whenever the worker is gone that ran it or held its result. A command
is not to be repeated, so each run of its task asks here first. What must hold:
- A command is begun on one machine at a time, and again only where a retry is left.
- While its machine may come back, it is nobody else's.
- What became of it is told to whoever runs its task later.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

Plain = dict[str, Any]

MOST_LOST = 1000
"""of the lost ones that Dask has forgotten, kept for who asks what became of them"""


class Verdict(enum.StrEnum):
    START = "start"
    ADOPT = "adopt"
    """it was begun on this machine: find it there, or start it where it is not"""
    ELSEWHERE = "elsewhere"
    """it is another machine's, which may come back"""
    LOST = "lost"
    DONE = "done"


class Entry:
    """One command. `asked` is what its task says of itself: spec, created, retries, check."""

    def __init__(self, key: str, asked: Plain) -> None:
        self.key = key
        self.asked = asked
        self.retries = int(asked.get("retries", 0))
        """that are left"""
        self.attempt = 1
        self.machine: str | None = None
        self.job_id: str | None = None
        self.warnings: list[str] = []
        self.waits_for: str | None = None
        self.job: Plain | None = None
        """as it ended"""
        self.error: Plain | None = None
        """why it could not be begun"""
        self.lost = False

    @property
    def over(self) -> bool:
        return self.lost or self.job is not None or self.error is not None

    @property
    def begun(self) -> bool:
        """Whether there is something to tell of it."""
        return self.job_id is not None or self.over

    def view(self) -> Plain:
        names = ("key", "machine", "job_id", "warnings", "waits_for", "job", "error", "lost", "attempt", "asked")
        return {name: getattr(self, name) for name in names}

    def _again(self) -> None:
        self.retries -= 1
        self.attempt += 1
        self.machine = self.job_id = self.job = self.error = None
        self.warnings, self.waits_for = [], None


class Ledger:
    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lost: OrderedDict[str, Entry] = OrderedDict()

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key) or self._lost.get(key)

    def of_job(self, machine: str, job_id: str) -> Entry | None:
        """By a job's id or its beginning."""
        for entry in (*self._entries.values(), *self._lost.values()):
            if entry.machine == machine and entry.job_id is not None and entry.job_id.startswith(job_id):
                return entry
        return None

    def lost(self) -> Iterator[Entry]:
        yield from (entry for entry in self._entries.values() if entry.lost)
        yield from self._lost.values()

    def live_on(self, machine: str) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.machine == machine and not entry.over]

    def claim(self, key: str, machine: str, asked: Plain) -> tuple[Verdict, Entry]:
        """For a machine that is about to run the task."""
        entry = self._entries.setdefault(key, Entry(key, asked))
        if entry.lost:
            return Verdict.LOST, entry
        if entry.over:
            if not (_failed(entry) and entry.retries > 0):
                return Verdict.DONE, entry
            entry._again()
        if entry.machine is None:
            entry.machine = machine
            return Verdict.START, entry
        return (Verdict.ADOPT if entry.machine == machine else Verdict.ELSEWHERE), entry

    def placed(self, key: str, job_id: str, warnings: list[str], waits_for: str | None) -> None:
        if (entry := self._entries.get(key)) is not None:
            entry.job_id, entry.warnings, entry.waits_for = job_id, warnings, waits_for

    def refused(self, key: str, error: Plain) -> None:
        """It could not be begun."""
        if (entry := self._entries.get(key)) is not None:
            entry.error = error

    def finished(self, key: str, job: Plain) -> bool:
        """Whether it is to be run again, elsewhere if need be: the machine had lost it."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        if job.get("reason") == "lost" and entry.retries > 0:
            entry._again()
            return True
        entry.job = job
        return False

    def give_up(self, machine: str) -> tuple[list[Entry], list[Entry]]:
        """The machine does not come back: (what is lost with it, what is to be run elsewhere)."""
        lost, again = [], []
        for entry in self.live_on(machine):
            if entry.retries > 0:
                entry._again()
                again.append(entry)
            else:
                entry.lost = True
                lost.append(entry)
        return lost, again

    def forget(self, key: str) -> None:
        """Dask has forgotten the task."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.lost:
            self._lost[key] = entry
            while len(self._lost) > MOST_LOST:
                self._lost.popitem(last=False)


def _failed(entry: Entry) -> bool:
    """Whether its task raised, so that a retry of Dask's is what runs it now."""
    if entry.error is not None:
        return True
    job = entry.job or {}
    return bool(entry.asked.get("check")) and (job.get("reason") != "exited" or job.get("exit_code") != 0)
