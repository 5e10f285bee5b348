"""Host ports that jobs publish: each is one job's, and no other program's.

A published port is kept bound (never listened on) for as long as the job runs, so
that a server of the host's cannot take it meanwhile and then miss its clients.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable

from workerd.errors import Exhausted, InvalidParams
from workerd.job import Protocol, Publish

log = logging.getLogger("workerd")

Key = tuple[Protocol, int]
_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class HostPorts:
    """Owns one socket for each port."""

    def __init__(self) -> None:
        self._held: dict[Key, tuple[str, socket.socket | None]] = {}

    def take(self, publish: Iterable[Publish], job_id: str) -> None:
        """All of them or none. Raises InvalidParams where one is in use, Exhausted."""
        try:
            for port in publish:
                self._held[_key(port)] = (job_id, self._bind(port))
        except BaseException:
            self.give_back(job_id)
            raise

    def claim(self, publish: Iterable[Publish], job_id: str) -> None:
        """The job has them already (after a restart)."""
        for port in publish:
            try:
                bound = self._bind(port)
            except (InvalidParams, Exhausted) as error:
                log.warning("job %s: %s; it is the job that gets the connections", job_id, error)
                bound = None
            self._held[_key(port)] = (job_id, bound)

    def give_back(self, job_id: str) -> None:
        """All that this job has; can be repeated."""
        for key in [key for key, (holder, _) in self._held.items() if holder == job_id]:
            _, bound = self._held.pop(key)
            if bound is not None:
                bound.close()

    def holder(self, port: Publish) -> str | None:
        """The id of the job that has it."""
        held = self._held.get(_key(port))
        return held[0] if held else None

    def close(self) -> None:
        for job_id in {holder for holder, _ in self._held.values()}:
            self.give_back(job_id)

    def _bind(self, port: Publish) -> socket.socket:
        if _key(port) in self._held:
            raise _in_use(port, "is published by a job")
        bound = None
        try:
            bound = socket.socket(socket.AF_INET, _KINDS[port.protocol] | socket.SOCK_CLOEXEC)
            bound.bind(("", port.host))
        except OSError as error:
            if bound is not None:
                bound.close()
            if error.errno == errno.EADDRINUSE:
                raise _in_use(port, "is in use on this machine") from error
            raise Exhausted(f"host port {port.host}/{port.protocol} cannot be had: {error.strerror}") from error
        return bound


def _key(port: Publish) -> Key:
    return port.protocol, port.host


def _in_use(port: Publish, why: str) -> InvalidParams:
    return InvalidParams(f"host port {port.host}/{port.protocol} {why}: publish another", field="publish")
