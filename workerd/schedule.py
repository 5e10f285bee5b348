"""Which waiting jobs start next, and why the others wait. Pure: numbers in, ids out.

What must hold:
- The totals are never exceeded: what is counted of a job is the memory, CPUs and pids
  that it asked for, and the job itself against `max_running`.
- First in, first out within a user, after priority: a user's job never starts before
  another of that user that is in front of it, even where it would fit.
- Fair between users: the next to start is a job of the user who has the least running
  (the largest of the shares of the machine's totals; then the number of jobs), and among
  those alike of the one who was served longest ago.
- Nobody is starved by small jobs of others: what a user's first job lacks of the machine
  is kept free for it, up to that user's equal share of the machine. Beyond that share
  nothing is kept, so that one large wish cannot hold up everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from workerd.config import Totals
from workerd.job import Job
from workerd.units import format_size

_RESOURCES = ("memory", "cpus", "pids")
_LIMITS = ("max_running", *_RESOURCES)


class Request(NamedTuple):
    """A job, as far as it counts. Requests of one user are in the order they came in."""

    id: str
    uid: int
    memory: int = 0
    cpus: float = 0
    pids: int = 0
    priority: int = 0
    totals: Totals = Totals()
    """of its user; all None where the policy does not bind the user"""

    @property
    def max_running(self) -> int:
        """What it takes of the total of that name."""
        return 1


class Plan(NamedTuple):
    start: list[str]
    """in this order"""
    waits: dict[str, str]
    """id → why, of each user's first that does not start; that user's others are behind it"""


def request(job: Job, totals: Totals) -> Request:
    limits = job.spec.limits
    return Request(job.id, job.uid, limits.memory or 0, limits.cpus or 0, limits.pids or 0, job.spec.priority, totals)


def choose(waiting: Iterable[Request], running: Iterable[Request], machine: Totals, served: Mapping[int, int]) -> Plan:
    """`served` says of each user when a job of theirs last started, as a rising number."""
    return _Choice(waiting, running, machine, served).plan()


def never_fits(wish: Request, machine: Totals) -> str | None:
    """Why it could not start even if nothing else ran; None where it could."""
    for whose, totals in (("the machine's", machine), ("your", wish.totals)):
        for name in _LIMITS:
            total, asked = getattr(totals, name), getattr(wish, name)
            if total is not None and asked > total:
                return f"{_named(name, asked)} is more than {whose} total of {_figure(name, total)}"
    return None


class _Use:
    """What some running jobs take together."""

    def __init__(self) -> None:
        self.max_running = 0
        self.memory = 0
        self.cpus = 0.0
        self.pids = 0

    def add(self, wish: Request) -> None:
        self.max_running += 1
        self.memory += wish.memory
        self.cpus += wish.cpus
        self.pids += wish.pids


class _Choice:
    def __init__(
        self, waiting: Iterable[Request], running: Iterable[Request], machine: Totals, served: Mapping[int, int]
    ) -> None:
        self._machine = machine
        self._served = dict(served)
        self._clock = max(self._served.values(), default=0)
        self._all = _Use()
        self._users: dict[int, _Use] = {}
        self._queues: dict[int, list[Request]] = {}
        self._kept: dict[int, dict[str, float]] = {}
        for wish in running:
            self._count(wish)
        for wish in waiting:
            self._queues.setdefault(wish.uid, []).append(wish)
        for queue in self._queues.values():
            queue.sort(key=lambda wish: -wish.priority)  # stable: as they came in, otherwise
        self._sharers = max(1, len(self._users.keys() | self._queues.keys()))

    def plan(self) -> Plan:
        start: list[str] = []
        waits: dict[str, str] = {}
        ready = set(self._queues)
        while ready:
            uid = min(ready, key=self._turn)
            first = self._queues[uid][0]
            why = self._lacks(first)
            if why is None:
                self._count(first)
                self._clock += 1
                self._served[uid] = self._clock
                start.append(first.id)
                del self._queues[uid][0]
            else:
                waits[first.id] = why
            if why is not None or not self._queues[uid]:
                ready.discard(uid)  # within one choice, room only gets less
        return Plan(start, waits)

    def _count(self, wish: Request) -> None:
        self._all.add(wish)
        self._users.setdefault(wish.uid, _Use()).add(wish)

    def _turn(self, uid: int) -> tuple[float, int, int, int]:
        use = self._users.get(uid) or _Use()
        shares = [
            getattr(use, name) / total for name in _RESOURCES if (total := getattr(self._machine, name))
        ]
        return max(shares, default=0.0), use.max_running, self._served.get(uid, 0), uid

    def _lacks(self, wish: Request) -> str | None:
        """Why it cannot start now; what it lacks of the machine is then kept for it."""
        use = self._users.get(wish.uid) or _Use()
        for name in _LIMITS:
            total = getattr(wish.totals, name)
            if total is not None and getattr(use, name) + getattr(wish, name) > total:
                return _lack(name, wish, total, total - getattr(use, name), "your")
        for name in _LIMITS:
            total = getattr(self._machine, name)
            kept = sum(keep.get(name, 0) for keep in self._kept.values())
            if total is not None and getattr(self._all, name) + kept + getattr(wish, name) > total:
                self._kept[wish.uid] = self._keep(wish, use)
                return _lack(name, wish, total, total - getattr(self._all, name) - kept, "the machine's")
        return None

    def _keep(self, wish: Request, use: _Use) -> dict[str, float]:
        keep = {}
        for name in _RESOURCES:
            if (total := getattr(self._machine, name)) is not None:
                share = total / self._sharers - getattr(use, name)
                keep[name] = max(0, min(getattr(wish, name), share))
        return keep


def _lack(name: str, wish: Request, total: float, left: float, whose: str) -> str:
    if name == "max_running":
        return f"{whose} {total:g} running job{' is' if total == 1 else 's are'} there already"
    asked, left = _named(name, getattr(wish, name)), max(0, left)
    return f"{asked} is more than the {_figure(name, left)} left of {whose} total of {_figure(name, total)}"


def _named(name: str, value: float) -> str:
    return f"{value:g} running job" if name == "max_running" else f"{name} {_figure(name, value)}"


def _figure(name: str, value: float) -> str:
    return format_size(int(value)) if name == "memory" else f"{value:g}"
