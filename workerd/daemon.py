"""The daemon from start to stop: everything is made here, in order, and undone in
reverse."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from workerd import config, gate, recovery, salvage, sdnotify, server
from workerd.auth import may_connect
from workerd.cgroup import CgroupTree, default_root
from workerd.chronicle import Chronicle
from workerd.deadlines import Deadlines
from workerd.errors import WorkerError
from workerd.eventboard import EventBoard
from workerd.eventmethods import EventMethods
from workerd.execution import Executor
from workerd.followers import Followers
from workerd.history import History
from workerd.jobmethods import JobMethods
from workerd.pausing import Pauser
from workerd.queue import Queue
from workerd.registry import Registry
from workerd.removal import Remover
from workerd.service import Service
from workerd.stopping import Stopper
from workerd.store import Store
from workerd.storethread import StoreThread
from workerd.supervisor import Place, Supervisor
from workerd.ttymethods import TtyMethods
from workerd.updating import Updater

log = logging.getLogger("workerd")

DEFAULT_CONFIG = "/etc/workerd/workerd.toml"
SOCKET_GROUP = "worker"
DRAIN_SECONDS = 5.0


class Settings(NamedTuple):
    """What the command line said."""

    place: Place
    socket: str
    cgroup: str | None
    config: str | None
    allow_missing_controllers: bool
    stop_jobs_on_exit: bool


def load_config(path: str | None) -> config.Config:
    """Raises ConfigError; a file that was named must be there."""
    return config.load(Path(path or DEFAULT_CONFIG), required=path is not None)


async def serve(settings: Settings, loaded: config.Config) -> int:
    """Start, serve, stop; the process's exit status. Raises WorkerError, OSError where
    it cannot start."""
    gate.raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tree = CgroupTree(
        Path(settings.cgroup) if settings.cgroup else default_root(), allow_missing=settings.allow_missing_controllers
    )
    tree.prepare()
    if tree.missing:
        log.warning("this host cannot limit: %s", ", ".join(sorted(tree.missing)))
    opened = Store.open(Path(settings.place.state_dir) / "state.db")
    store = StoreThread(opened)
    followers = Followers(loop)
    keeper = KeeperWatch(loop, tree.root, stop)
    async with asyncio.TaskGroup() as tasks:
        registry = Registry(loaded, store, lambda job_id: f"{settings.place.state_dir}/jobs/{job_id}")
        registry.observers.append(Chronicle())
        supervisor = Supervisor(settings.place, registry, tree, followers, tasks)
        stopper = Stopper(registry, supervisor.settle)
        queue = Queue(supervisor, tasks)
        remover = Remover(registry, stopper, supervisor.files)
        history = History(registry, remover, tasks)
        pauser = Pauser(registry)
        deadlines = Deadlines(registry, stopper, pauser, tasks)
        await salvage.salvage(registry, settings.place.state_dir, opened.set_aside)
        await recovery.recover(supervisor, stopper)
        service = Service(supervisor, queue, stopper, followers, settings.socket)
        service.handlers |= JobMethods(registry, pauser, remover, Updater(registry, queue.policy_changed)).handlers
        service.handlers |= EventMethods(registry, EventBoard(store)).handlers
        executor = Executor(supervisor)
        service.handlers |= TtyMethods(supervisor, executor).handlers
        served = server.Server(
            _listen(settings.socket), service, tasks, lambda peer: may_connect(peer, registry.config.policy)
        )
        told = (history.wake, queue.policy_changed, served.check_peers)
        reloads = Reloads(registry, settings.config, told, supervisor.totals.follow)
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.create_task(reloads.reload()))
        served.start()
        history.start()
        deadlines.start()
        queue.start()
        log.info("serving on %s; %d jobs run", settings.socket, registry.count(queued=False))
        sdnotify.notify("READY=1")
        watchdog = Watchdog(loop)
        await stop.wait()
        sdnotify.notify("STOPPING=1")
        served.stop_accepting()
        if settings.stop_jobs_on_exit:
            await stopper.stop_everything()
        await asyncio.gather(served.drain(DRAIN_SECONDS), queue.close(DRAIN_SECONDS))
        watchdog.close()
        deadlines.close()
        history.close()
        executor.close()
        supervisor.close()
        registry.close()
    await supervisor.network.close()
    keeper.close()
    followers.close()
    store.close()
    return 1 if keeper.gone else 0


class Reloads:
    """SIGHUP: a new policy, told to whom it may concern; or the old one, and why. Jobs
    that run keep what they were admitted with."""

    def __init__(
        self,
        registry: Registry,
        path: str | None,
        told: tuple[Callable[[], None], ...],
        follow: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._path = path
        self._told = told
        self._follow = follow
        self._lock = asyncio.Lock()

    async def reload(self) -> None:
        """One at a time, in a thread: names are looked up, perhaps in a directory far away."""
        async with self._lock:
            sdnotify.notify_reloading()
            try:
                self._registry.config = await asyncio.to_thread(load_config, self._path)
            except (WorkerError, OSError) as error:
                log.error("the policy is unchanged: %s", error)
            else:
                await self._follow()
                for tell in self._told:
                    tell()
                log.info("the policy was read again")
            sdnotify.notify("READY=1")


class Watchdog:
    """Tells systemd that the loop still turns, where systemd asks for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interval = sdnotify.watchdog_interval()
        self._timer: asyncio.TimerHandle | None = None
        if self._interval is not None:
            self._beat(self._interval)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self, interval: float) -> None:
        sdnotify.notify("WATCHDOG=1")
        self._timer = self._loop.call_later(interval, self._beat, interval)


class KeeperWatch:
    """Stops the daemon when the keeper is gone, and with it the cgroups: the restart
    then brings both back (Requires= in workerd.service). Without a keeper, nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, root: Path, stop: asyncio.Event) -> None:
        self.gone = False
        self._loop = loop
        self._stop = stop
        self._pidfd = -1
        with contextlib.suppress(OSError, ValueError, IndexError):
            pids = (root / "keeper" / "cgroup.procs").read_text().split()
            self._pidfd = os.pidfd_open(int(pids[0]))
            loop.add_reader(self._pidfd, self._ended)

    def close(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        log.error("the keeper of the jobs' cgroups has ended: stopping, to be started anew with it")
        self.gone = True
        self.close()
        self._stop.set()


def _listen(path: str) -> socket.socket:
    given = sdnotify.listen_socket()
    if given is not None:
        return given
    try:
        group: int | None = grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        group = None
    return server.bind(path, group)
