"""The addresses of jobs on the bridge: who has which. Pure.

An address that was given back is the last to be given again, so that nothing still
under way to one job reaches the next.
"""

from __future__ import annotations

import ipaddress
from collections import deque

from workerd.errors import Exhausted


class AddressPool:
    """Of a network's hosts the first is the bridge's own; the others are for jobs."""

    def __init__(self, network: ipaddress.IPv4Network) -> None:
        self.network = network
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self._fresh = self._first
        self._returned: deque[int] = deque()
        self._taken: dict[int, str] = {}

    def __len__(self) -> int:
        """Addresses taken."""
        return len(self._taken)

    @property
    def size(self) -> int:
        return self._last - self._first + 1

    def take(self, job_id: str) -> str:
        """An address for this job. Raises Exhausted where all are taken."""
        while self._fresh <= self._last:
            number, self._fresh = self._fresh, self._fresh + 1
            if number not in self._taken:
                return self._give(number, job_id)
        while self._returned:
            number = self._returned.popleft()
            if number not in self._taken:
                return self._give(number, job_id)
        raise Exhausted(
            f"all {self.size} addresses of {self.network} are taken: wait for a job on the bridge to end, "
            "or have the administrator set a larger [network] addresses",
            field="net",
        )

    def claim(self, address: str, job_id: str) -> None:
        """This job has this one already (after a restart). One that is no address of
        this pool is no concern of it."""
        number = int(ipaddress.IPv4Address(address))
        if self._first <= number <= self._last:
            self._taken[number] = job_id

    def give_back(self, address: str, job_id: str) -> None:
        """Can be repeated; nothing where another job has it by now."""
        number = int(ipaddress.IPv4Address(address))
        if self._taken.get(number) == job_id:
            del self._taken[number]
            self._returned.append(number)

    def _give(self, number: int, job_id: str) -> str:
        self._taken[number] = job_id
        return str(ipaddress.IPv4Address(number))
