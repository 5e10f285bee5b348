"""The network of jobs on the bridge: an address, a veth, published ports; and all of it
undone when the job ends.

What must hold. All that belongs to a job can be found again from what the kernel has
(its link, by name) and from the job's record (address, published ports), so that a restarted daemon
takes it up as it is, and removes what is nobody's. That there is a bridge of ours is
noted in <runtime>/network.json before it is made.

Everything that talks to the kernel runs in one thread of its own, one thing at a time
(workerd.bridge says why), which imports pyroute2 when the first job asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from workerd import resolver
from workerd.addresspool import AddressPool
from workerd.errors import ConfigError, Exhausted, InternalError, WorkerError
from workerd.hostports import HostPorts
from workerd.job import Job, Net, Publish
from workerd.netconfig import NetworkSettings

if TYPE_CHECKING:
    from workerd.bridge import Bridge
    from workerd.nft import Table

log = logging.getLogger("workerd")

T = TypeVar("T")

_SCARCE = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EMFILE, errno.ENFILE})


class Note(Struct, frozen=True):
    """network.json: what is ours, and what is to be put back."""

    settings: NetworkSettings
    opened: tuple[str, ...] = ()
    """uplinks whose forwarding we switched on"""


class Lease(Struct, frozen=True):
    """What one job was given, before there is a process to give it to."""

    job_id: str
    address: str
    gateway: str
    prefix: int
    resolv_conf: str
    hosts: str
    """their text"""
    warnings: tuple[str, ...] = ()


class Network:
    """Made once; `settings` gives what the configuration says at the time. Settings
    that change are taken over when no job is on the bridge."""

    def __init__(self, runtime_dir: str, settings: Callable[[], NetworkSettings]) -> None:
        self._wanted = settings
        self._path = f"{runtime_dir}/network.json"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._pool: AddressPool | None = None
        self._pool_settings = settings()
        self._ports = HostPorts()
        self._jobs: dict[str, Job] = {}
        # Of the thread:
        self._bridge: Bridge | None = None
        self._table: Table | None = None
        self._note: Note | None = None

    # ── of the loop ──

    async def lease(self, job: Job) -> Lease:
        """An address and the published ports for a job that is about to start. Raises
        Exhausted, InvalidParams (a port in use), ConfigError, InternalError."""
        pool = self._current_pool()
        address = pool.take(job.id)
        leased = msgspec.structs.replace(job, address=address)
        self._jobs[job.id] = leased
        settings = self._pool_settings
        try:
            self._ports.take(job.spec.publish, job.id)
            found = await self._call(lambda: self._prepare(leased, settings))
        except BaseException:
            await self.release(leased)
            raise
        hosts = resolver.hosts(address, job.spec.hostname or job.id)
        return Lease(job.id, address, settings.gateway, settings.prefix, found.text, hosts, found.warnings)

    async def connect(self, lease: Lease, pid: int) -> None:
        """Put the job's first process on the bridge. Raises InternalError."""
        await self._call(lambda: self._connect(lease, pid))

    async def release(self, job: Job) -> None:
        """All that the job has; can be repeated. Its ports and its address are free when
        this returns; its link goes before anything that is asked for later (one thread,
        in order). What cannot be removed is logged, and found again at the next start."""
        leased = self._jobs.pop(job.id, None)
        if leased is None:
            return
        forwards = [(port, address) for port, address in _forwards([leased]) if self._ports.holder(port) == job.id]
        try:
            if forwards:
                await self._call(lambda: self._unpublish(forwards))
        except WorkerError as error:
            log.error("job %s: %s", job.id, error)
        finally:
            self._ports.give_back(job.id)
            if self._pool is not None and leased.address is not None:
                self._pool.give_back(leased.address, job.id)
            self._thread.submit(self._disconnect, job.id)

    async def recover(self, jobs: Iterable[Job]) -> None:
        """After a start: these live jobs keep what they have; the rest goes."""
        live = [job for job in jobs if job.spec.net is Net.BRIDGE]
        note = self._read_note()
        if note is None:
            return
        self._pool_settings = note.settings
        self._pool = AddressPool(note.settings.network)
        for job in live:
            if job.address is not None:
                self._jobs[job.id] = job
                self._pool.claim(job.address, job.id)
                self._ports.claim(job.spec.publish, job.id)
        try:
            await self._call(lambda: self._recover(note, live))
        except WorkerError as error:
            log.error("the jobs' network: %s", error)

    async def close(self) -> None:
        """Let go. The bridge stays for the jobs on it; without any, it goes."""
        if self._bridge is not None:
            with contextlib.suppress(WorkerError):
                await self._call(self._tear_down if not self._jobs else self._let_go)
        self._ports.close()
        self._thread.shutdown(wait=False)

    def _current_pool(self) -> AddressPool:
        wanted = self._wanted()
        if self._pool is None or (not self._jobs and not _same_bridge(wanted, self._pool_settings)):
            self._pool = AddressPool(wanted.network)
            self._pool_settings = wanted
        elif not _same_bridge(wanted, self._pool_settings):
            log.warning("[network] of the configuration changes when no job is on the bridge any more")
        else:
            self._pool_settings = wanted
        return self._pool

    async def _call(self, function: Callable[[], T]) -> T:
        """In the thread, whatever becomes of the caller: what is begun is finished."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, _told, function))

    # ── of the thread ──

    def _prepare(self, job: Job, settings: NetworkSettings) -> resolver.Resolver:
        self._set_up(settings)
        assert self._table is not None
        if job.spec.publish:
            self._table.publish(_forwards([job]))
        return resolver.resolver(settings.dns)

    def _set_up(self, settings: NetworkSettings) -> None:
        if self._note is not None and not _same_bridge(settings, self._note.settings):
            self._tear_down()
        if self._bridge is None:
            self._open(settings)
        assert self._bridge is not None and self._table is not None
        if self._note is None:
            self._make(settings)
        elif not self._bridge.find():
            log.error("the bridge %s was removed by somebody: it is made anew", settings.bridge)
            self._bridge.make()
            self._table.build(_forwards(self._jobs.values()), self._note.opened)
        self._open_uplinks()

    def _make(self, settings: NetworkSettings) -> None:
        """Whole, or nothing of it."""
        assert self._bridge is not None and self._table is not None
        if self._bridge.find():
            raise ConfigError(
                f"there is an interface {settings.bridge} already, which is not workerd's: "
                "choose another name in [network] bridge",
                line=0,
            )
        self._write_note(Note(settings))
        try:
            self._bridge.make()
            self._table.build((), ())
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove()
            raise

    def _open(self, settings: NetworkSettings) -> None:
        # Here, since the loop must not wait for the import.
        from workerd.bridge import Bridge
        from workerd.nft import Table

        self._bridge = Bridge(settings)
        self._table = Table(settings.bridge, settings.network)

    def _open_uplinks(self) -> None:
        """Whatever leads to the outside now."""
        from workerd.bridge import Forwarding

        assert self._bridge is not None and self._table is not None and self._note is not None
        if self._note.opened and Forwarding.everywhere():
            # Somebody wants this machine to be a router: then we are not to stand in the way.
            self._write_note(msgspec.structs.replace(self._note, opened=()))
            self._table.build(_forwards(self._jobs.values()), ())
        for uplink in Forwarding.closed(self._bridge.uplinks()):
            self._write_note(msgspec.structs.replace(self._note, opened=(*self._note.opened, uplink)))
            self._table.open_uplink(uplink)
            Forwarding.switch(uplink, on=True)

    def _connect(self, lease: Lease, pid: int) -> None:
        assert self._bridge is not None
        self._bridge.connect(lease.job_id, pid, lease.address)

    def _unpublish(self, forwards: list[tuple[Publish, str]]) -> None:
        if self._table is not None:
            self._table.unpublish(forwards)

    def _disconnect(self, job_id: str) -> None:
        try:
            if self._bridge is not None:
                self._bridge.disconnect(job_id)
        except OSError as error:
            log.error("job %s: its network link remains: %s", job_id, error)

    def _recover(self, note: Note, live: list[Job]) -> None:
        self._open(note.settings)
        self._note = note
        assert self._bridge is not None and self._table is not None
        if not live:
            self._tear_down()
            return
        if not self._bridge.find():
            log.error("the bridge %s is gone: its jobs have no network", note.settings.bridge)
            self._bridge.make()
        ids = {job.id for job in live}
        for link in self._bridge.links():
            if link.job_id not in ids:
                self._bridge.disconnect(link.job_id)
        self._table.build(_forwards(live), note.opened)
        self._open_uplinks()

    def _tear_down(self) -> None:
        """Nothing of ours is left."""
        if self._note is not None:
            self._remove()
        self._let_go()

    def _remove(self) -> None:
        from workerd.bridge import Forwarding

        assert self._bridge is not None and self._table is not None and self._note is not None
        self._bridge.remove()
        if not Forwarding.everywhere():
            for uplink in self._note.opened:
                Forwarding.switch(uplink, on=False)
        self._table.remove()
        self._note = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _let_go(self) -> None:
        if self._bridge is not None and self._table is not None:
            self._bridge.close()
            self._table.close()
        self._bridge = self._table = None

    def _read_note(self) -> Note | None:
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=Note)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError) as error:
            log.error("%s: %s", self._path, error)
            return None

    def _write_note(self, note: Note) -> None:
        """Whole or not at all."""
        fresh = f"{self._path}.new"
        with open(fresh, "wb") as file:
            file.write(msgspec.json.encode(note))
        os.replace(fresh, self._path)
        self._note = note


def _told(function: Callable[[], T]) -> T:
    try:
        return function()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"cannot set up the job's network: {where}{error.strerror}"
        if error.errno in _SCARCE:
            raise Exhausted(message, errno=error.errno) from error
        raise InternalError(message, errno=error.errno) from error


def _same_bridge(one: NetworkSettings, other: NetworkSettings) -> bool:
    return (one.bridge, one.addresses, one.mtu) == (other.bridge, other.addresses, other.mtu)


def _forwards(jobs: Iterable[Job]) -> list[tuple[Publish, str]]:
    return [(publish, job.address) for job in jobs if job.address is not None for publish in job.spec.publish]
