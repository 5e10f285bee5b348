"""What /proc says of a process and of this boot (proc(5))."""

from __future__ import annotations

import os


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot: with the pid, one process for good.
    None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def waits_in_kernel(pid: int) -> bool:
    """Whether it is in uninterruptible sleep (state D): a signal, SIGKILL too, has to wait."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"D"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_namespace_init(pid: int) -> bool:
    """Whether it is PID 1 of a PID namespace just below ours."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    numbers = line.split()[1:]
                    return len(numbers) >= 2 and numbers[-1] == "1"
    except (FileNotFoundError, ProcessLookupError):
        return False
    return False


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
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((line.rpartition("/")[2] for line in lines if line.startswith("0::")), None)


def path_of_fd(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def command_line(pid: int) -> tuple[str, ...]:
    """Its arguments as they are now; empty where it is gone, or has wiped them."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(word.decode(errors="replace") for word in words.split(b"\0")) if words else ()


def groups(pid: int) -> tuple[int, tuple[int, ...]]:
    """(its real gid, its supplementary groups); (-1, ()) where it is gone."""
    gid = -1
    others: tuple[int, ...] = ()
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "Gid":
                    gid = int(value.split()[0])
                elif name == "Groups":
                    others = tuple(int(number) for number in value.split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return gid, others


def host_memory() -> int:
    """Bytes of RAM that the kernel has for programs (proc_meminfo(5), MemTotal)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def host_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))
