"""A job's cgroup: its limits, usage, freezing and killing.

What must hold: a JobCgroup owns its directory's fd, and all reading and writing
goes through that fd, so that it never reaches another cgroup of the same name.
All calls block, shortly (`wait_empty`, and `remove` under load, may last); one
JobCgroup is for one thread at a time, different ones for any.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

from workerd import blockdev, cgrouplimits
from workerd.cgroupfiles import CgroupNode, HeldAccounts, parse_flat, parse_nested, parse_pressure, read_account
from workerd.errors import InvalidParams
from workerd.job import Limits, Usage
from workerd.limitsnapshot import Snapshot, lift
from workerd.units import format_size

Reader = Callable[[bytes], str | None]
"""what a figure's file holds; None where the kernel keeps no such figure"""

_NO_CHILDREN = 2
"""links of a directory without directories (cgroup2 counts them): to be told so is a
tenth of the cost of listing its files"""
_GONE = (errno.ENOENT, errno.ENODEV)
"""what using a removed cgroup gives"""


class JobCgroup:
    """One job's cgroup: limits, usage, freeze, kill. Owns `fd`."""

    __slots__ = ("_context", "_node")

    def __init__(self, node: CgroupNode, context: cgrouplimits.Context) -> None:
        self._node = node
        self._context = context

    @property
    def path(self) -> Path:
        return Path(os.fsdecode(self._node.full_path))

    @property
    def fd(self) -> int:
        """The directory, close-on-exec, for CLONE_INTO_CGROUP; -1 once closed."""
        return self._node.fd

    def apply(self, limits: Limits, gids: Collection[int] = ()) -> tuple[Limits, tuple[str, ...]]:
        """Write `limits`; (the limits as the kernel then has them, warnings). One
        that is None stays as it was.

        `gids` are the caller's groups: the path of an I/O limit is followed with
        his permissions. Raises MissingController, InvalidParams, OSError; the
        cgroup is then to be removed.
        """
        context = self._context
        if gids:
            context = context._replace(caller=context.caller._replace(gids=gids))
        return cgrouplimits.apply(self._node, limits, context)

    def update(
        self, limits: Limits, lifted: Collection[str], gids: Collection[int] = ()
    ) -> tuple[Limits, tuple[str, ...]]:
        """As `apply`, of a job that runs, with the fields of Limits to lift besides; where
        it raises, everything is as it was. For a thread: the kernel may take memory
        back for long."""
        before = Snapshot(self._node)
        try:
            cgrouplimits.require(limits, self._context.available)
            if limits.memory is not None:
                self._make_room(limits.memory)
            lift(self._node, lifted)
            return self.apply(limits, gids)
        except BaseException:
            before.restore()
            raise

    def _make_room(self, memory: int) -> None:
        """Have the kernel take back what is over a lower limit (memory.reclaim, since Linux
        5.19): once that is written, it would kill instead. Raises InvalidParams."""
        used = self._node.memory.current or 0
        if used <= memory:
            return
        with contextlib.suppress(OSError):  # EAGAIN: not all of it could be had
            self._node.memory.set_property(b"memory.reclaim", used - memory)
        used = self._node.memory.current or 0
        if used > memory:
            raise InvalidParams(
                f"the job uses {format_size(used)} of memory: a limit of {format_size(memory)} would kill it",
                field="memory",
            )

    def usage(self, read: Reader | None = None) -> Usage:
        """What the job has used until now: one small read a figure, of the controllers
        that there are, each by `read` (default: opened, read, closed). Nested cgroups that
        the job made are included. `oom_kills` is the kernel's count, in which a process
        killed with its whole group may be two. Raises OSError."""
        read = read or functools.partial(read_account, self._node.fd)
        cpu = parse_flat(read(b"cpu.stat") or "")
        available = self._context.available
        return Usage(
            cpu_usec=cpu.get("usage_usec"),
            cpu_user_usec=cpu.get("user_usec"),
            cpu_system_usec=cpu.get("system_usec"),
            throttled_usec=cpu.get("throttled_usec"),
            throttled_periods=cpu.get("nr_throttled"),
            cpu_pressure_usec=_pressure(read(b"cpu.pressure")),
            memory_pressure_usec=_pressure(read(b"memory.pressure")),
            io_pressure_usec=_pressure(read(b"io.pressure")),
            **(_memory_usage(read) if "memory" in available else {}),
            **(_io_usage(read) if "io" in available else {}),
            **(_pids_usage(read) if "pids" in available else {}),
        )

    def hold_accounts(self) -> HeldAccounts:
        """For `usage` of this cgroup, again and again; the caller's to close."""
        return HeldAccounts(self._node)

    def counted_in(self) -> list[str]:
        """The files that the kernel notifies of when `counts` change (inotify(7))."""
        return [str(self.path / f"{name}.events") for name in ("memory", "pids") if name in self._context.available]

    def counts(self) -> Usage:
        """Only how often it was killed for want of memory, or hit a limit, until now."""
        memory, pids = self._node.memory.events or {}, self._node.pids.events or {}
        return Usage(memory_max_hits=memory.get("max"), oom_kills=memory.get("oom_kill"), pids_max_hits=pids.get("max"))

    def cpu_usec(self) -> int:
        """CPU time that all its processes have used, those that ended too; microseconds.
        The kernel counts it with and without the cpu controller."""
        return (self._node.cpu.stat or {}).get("usage_usec", 0)

    def oom_killed(self) -> bool:
        """Whether the kernel killed any of the job's processes for want of memory,
        be it the job's limit, the user's total or the machine's memory that was
        reached: the kill is counted where the victim was, and in its ancestors."""
        if "memory" not in self._context.available:
            return False
        return (self._node.memory.events or {}).get("oom_kill", 0) > 0

    def populated(self) -> bool:
        """Whether it holds live processes, nested cgroups included. False also
        when it is removed."""
        return bool((self._node.core.events or {}).get("populated", 0))

    def procs(self) -> list[int]:
        """pids, as workerd sees them, nested cgroups included."""
        return [pid for path in self._directories() for pid in _procs(path)]

    def freeze(self, frozen: bool) -> None:
        """Stop or go on. The kernel freezes in its own time, within milliseconds."""
        self._node.core.freeze = frozen

    def kill(self) -> None:
        """SIGKILL to every process, nested cgroups included; does not wait for
        their end. Frozen ones die as well."""
        try:
            self._node.core.kill = True
        except OSError as error:
            if error.errno not in _GONE:
                raise
            if self.path.exists():
                self._kill_each()  # before Linux 5.14

    def _kill_each(self) -> None:
        """Frozen first, so that nobody forks away. A pid that is still listed after
        its pidfd was opened is the process that the pidfd stands for."""
        self.freeze(True)
        killed: set[int] = set()
        try:
            while fresh := set(self.procs()) - killed:
                pidfds = {pid: fd for pid in fresh if (fd := _pidfd(pid)) is not None}
                still = set(self.procs())
                for pid, fd in pidfds.items():
                    if pid in still:
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                    os.close(fd)
                killed |= fresh
        finally:
            self.freeze(False)

    def wait_empty(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the last process to be gone; whether it
        is. For a thread: the kernel tells it through cgroup.events."""
        return self._wait_while(b"populated 1", timeout)

    def frozen(self) -> bool:
        """Whether it was told to freeze, or to stay frozen; False where it is gone."""
        try:
            return self._node.core.freeze
        except OSError:
            return False

    def wait_frozen(self, frozen: bool, timeout: float) -> bool:
        """As `wait_empty`, for the last process to be frozen, or not to be."""
        return self._wait_while(b"frozen 0" if frozen else b"frozen 1", timeout)

    def _wait_while(self, line: bytes, timeout: float) -> bool:
        deadline, poll = time.monotonic() + timeout, select.poll()
        try:
            events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EBADF):  # gone, or closed
                return True
            raise
        try:
            poll.register(events, select.POLLPRI)
            # Reading also arms the poll: a change after it wakes us.
            while line in os.pread(events, 4096, 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)
            return True
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise
        finally:
            os.close(events)

    def remove(self) -> None:
        """Remove it and what the job nested in it; nothing where it is gone. Raises
        OSError (EBUSY) where processes remain."""
        try:
            _remove(self._node.full_path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            for path in reversed(self._directories()):
                _remove(path)

    def close(self) -> None:
        self._node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _directories(self) -> list[str]:
        """The cgroup and all that are nested in it, parents first."""
        found = [os.fspath(self.path)]
        for path in found:  # which grows meanwhile
            found += children(path)
        return found


def _remove(path: str | bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def children(path: str | os.PathLike[str]) -> list[str]:
    """The paths of the cgroups in one; none where it is gone."""
    try:
        if os.stat(path).st_nlink == _NO_CHILDREN:
            return []
        with os.scandir(os.fspath(path)) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _procs(path: str) -> list[int]:
    """None for a threaded cgroup, whose processes are listed in the one above it."""
    try:
        with open(os.path.join(path, "cgroup.procs")) as lines:
            return [int(line) for line in lines]
    except OSError as error:
        if error.errno in (*_GONE, errno.EOPNOTSUPP):
            return []
        raise


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _memory_usage(read: Reader) -> dict[str, int | None]:
    events = parse_flat(read(b"memory.events") or "")
    return {
        "memory_current": _count(read(b"memory.current")),
        "memory_peak": _count(read(b"memory.peak")),  # since Linux 5.19
        "swap_peak": _count(read(b"memory.swap.peak")),  # newer kernels only
        "memory_max_hits": events.get("max"),
        "oom_kills": events.get("oom_kill"),
    }


def _io_usage(read: Reader) -> dict[str, int | None]:
    stat = read(b"io.stat")
    read_bytes, written = _io_bytes(None if stat is None else parse_nested(stat))
    return {"io_read_bytes": read_bytes, "io_write_bytes": written}


def _pids_usage(read: Reader) -> dict[str, int | None]:
    events = parse_flat(read(b"pids.events") or "")
    return {
        "pids_current": _count(read(b"pids.current")),
        "pids_peak": _count(read(b"pids.peak")),  # newer kernels only
        "pids_max_hits": events.get("max"),
    }


def _count(value: str | None) -> int | None:
    return None if value is None else int(value)


def _pressure(value: str | None) -> int | None:
    return None if value is None else parse_pressure(value)


def _io_bytes(stat: dict[str, dict[str, str]] | None) -> tuple[int | None, int | None]:
    """(read, written) over all disks. What goes through a stacked device is mostly
    counted again below it, so those are not added; but where less is counted below
    (a RAID 5, a loop device), the stacked device's own figure holds."""
    if stat is None:
        return None, None
    stacked = {device: blockdev.is_stacked(device) for device in stat}

    def total(key: str) -> int:
        figures = {device: int(fields.get(key, 0)) for device, fields in stat.items()}
        below = sum(number for device, number in figures.items() if not stacked[device])
        return max(below, *(number for device, number in figures.items() if stacked[device]), 0)

    return total("rbytes"), total("wbytes")
