"""How much of the daemon a user may have: connections, bytes, requests, descriptors.

What must hold: whatever one user does, another's request is answered soon. So each
user's connections are one account with bounds of its own: what is held in memory for
it, and how much of it is carried out at once. Root has no bound on connections, and
room in all of them together that nobody else can take.
"""

from __future__ import annotations

import asyncio
import resource

from workerd.errors import Exhausted

MAX_CONNECTIONS = 1024
"""of one user"""
MAX_ALL = 16_384
ROOTS_SHARE = 64
"""connections of MAX_ALL that only root can have"""
MAX_HELD = 16 << 20
"""bytes of a user's requests, whole or in part, that are not answered yet"""
MAX_UNSENT = 64 << 20
"""bytes of answers that a user's clients leave unread"""
MAX_PENDING = 8192
"""requests of a user under way, waits included"""
MAX_FDS = 512
"""descriptors of a user that no request has claimed yet"""

# What takes a while is bounded apart, so that it does not hold up what does not.
_AT_ONCE = {"start": 16, "quick": 8}
_STARTS = frozenset({"job.run", "job.rerun", "job.exec"})
LASTING = frozenset({"job.wait", "job.stop", "job.remove", "output.wait", "events.subscribe"})
"""methods that mostly wait: any number at once, within MAX_PENDING"""

_FDS_FOR_JOBS = 0.5
"""of all descriptors: a job takes two, a connection one"""


class Account:
    """One user's, for as long as there is a connection."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.connections = 0
        self.held = 0
        self.unsent = 0
        self.pending = 0
        self.fds = 0
        self._slots = {kind: asyncio.Semaphore(count) for kind, count in _AT_ONCE.items()}

    def slot(self, method: str) -> asyncio.Semaphore | None:
        """To be held while the method is carried out; None: it needs none."""
        if method in LASTING:
            return None
        return self._slots["start" if method in _STARTS else "quick"]


class Gate:
    """All accounts."""

    def __init__(self) -> None:
        self._accounts: dict[int, Account] = {}
        self._all = 0
        self.limit = connections_possible()

    def enter(self, uid: int) -> Account:
        """One more connection. Raises Exhausted."""
        account = self._accounts.get(uid) or Account(uid)
        if uid != 0:
            if account.connections >= MAX_CONNECTIONS:
                raise Exhausted(f"you have {MAX_CONNECTIONS} connections to workerd already: close some")
            if self._all >= self.limit - ROOTS_SHARE:
                raise Exhausted("workerd has as many connections as it can hold: try again later")
        self._accounts[uid] = account
        account.connections += 1
        self._all += 1
        return account

    def leave(self, account: Account) -> None:
        account.connections -= 1
        self._all -= 1
        self.settle(account)

    def settle(self, account: Account) -> None:
        """Forget an account of which nothing is left."""
        if account.connections == 0 and account.pending == 0:
            self._accounts.pop(account.uid, None)


def raise_descriptor_limit() -> None:
    """To all that this process may have (getrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_possible() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_ALL
    return max(2 * ROOTS_SHARE, min(MAX_ALL, int(soft * (1 - _FDS_FOR_JOBS))))
