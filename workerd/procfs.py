"""What /proc says of a process and of this boot (proc(5)).

A process's name is its own to choose, any bytes: what holds one is not decoded."""

from __future__ import annotations

import os

WALL = 0x40000000
"""__WALL of waitpid(2), for a PID 1: it is cloned without an exit signal"""
_ROOM = 4096
"""bytes, for almost all of these files"""


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot: with the pid, one process for good.
    None where there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def waits_in_kernel(pid: int) -> bool:
    """Whether it is in uninterruptible sleep (state D): a signal, SIGKILL too, has to wait."""
    return _stat(pid)[:1] == [b"D"]


def is_namespace_init(pid: int) -> bool:
    """Whether it is PID 1 of a PID namespace just below ours."""
    numbers = _status(pid).get(b"NSpid", b"").split()
    return len(numbers) >= 2 and numbers[-1] == b"1"


def children_in(cgroup: str) -> list[int]:
    """The calling thread's children, dead ones too, in the cgroup of that name; none where
    the kernel does not list them (CONFIG_PROC_CHILDREN)."""
    try:
        with open("/proc/thread-self/children") as file:
            children = [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []
    return [pid for pid in children if _cgroup(pid) == cgroup]


def _cgroup(pid: int) -> str | None:
    """The last part of its path (cgroups(7)); None where there is no such process."""
    lines = _read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines()
    return next((line.rpartition("/")[2] for line in lines if line.startswith("0::")), None)


def path_of_fd(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def command_line(pid: int) -> tuple[str, ...]:
    """Its arguments as they are now; empty where it is gone, or has wiped them."""
    words = _read(f"/proc/{pid}/cmdline").rstrip(b"\0")
    return tuple(word.decode(errors="replace") for word in words.split(b"\0")) if words else ()


def groups(pid: int) -> tuple[int, tuple[int, ...]]:
    """(its real gid, its supplementary groups); (-1, ()) where it is gone."""
    status = _status(pid)
    if not status:
        return -1, ()
    return int(status[b"Gid"].split()[0]), tuple(int(number) for number in status[b"Groups"].split())


def _stat(pid: int) -> list[bytes]:
    """The fields from the third, the state, on: the second, its name, may hold spaces and
    parentheses. None of them where it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _status(pid: int) -> dict[bytes, bytes]:
    """Empty where it is gone. By newlines alone: those of its name are escaped, and nothing else."""
    lines = _read(f"/proc/{pid}/status").split(b"\n")
    return {name: value for name, colon, value in (line.partition(b":") for line in lines) if colon}


def _read(path: str) -> bytes:
    """All of a process's file; nothing where that process is gone. As a rule three system
    calls, where open() takes eight."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = piece = os.read(fd, _ROOM)
            while len(piece) == _ROOM:
                piece = os.read(fd, _ROOM)
                data += piece
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    return data


def host_memory() -> int:
    """Bytes of RAM that the kernel has for programs (proc_meminfo(5), MemTotal)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def host_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))
