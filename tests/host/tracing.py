"""Stops a process between two of its system calls (ptrace(2)), to change there what it looks at,
or to kill it. All of it but `killed_after` is one thread's to call."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from workerd.procfs import WALL

CLONE3 = 435
SENDTO = 44
SETNS = 308
OPENAT2 = 437
_POKEUSER, _ORIG_RAX = 6, 15 * 8
"""and where x86_64 has the number of a system call in what that changes"""
_SYSCALL, _DETACH, _GETEVENTMSG, _SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 24, 17, 0x4201, 0x4206, 0x4207, 0x420E
_TRACESYSGOOD, _TRACEVFORK = 1, 4
_EVENT_VFORK = 2
_ENTRY, _EXIT = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(*map(ctypes.c_long, (request, pid, address, data))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _spawned_by(pid: int) -> Traced:
    """Of what was seized, and goes its way; before the child's first instruction."""
    _, status = os.waitpid(pid, WALL)
    assert status >> 8 == signal.SIGTRAP | _EVENT_VFORK << 8, f"no child: {status:#x}"
    child = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, pid, 0, ctypes.addressof(child))
    _ptrace(_DETACH, pid)
    os.waitpid(child.value, WALL)
    return Traced(child.value)


@contextlib.contextmanager
def killed_after(pid: int, number: int) -> Iterator[Future[int]]:
    """Within, it is killed when its next system call of that number is carried out, before it
    does anything else: what that gave."""
    with _traced(_kill_after, pid, number) as result:
        yield result


@contextlib.contextmanager
def next_spawned_killed_after(pid: int, number: int) -> Iterator[Future[int]]:
    """The same of the next process that it spawns (vfork(2)), which first executes another program."""
    with _traced(_kill_spawned_after, pid, number) as result:
        yield result


@contextlib.contextmanager
def failing(pid: int, number: int, count: int) -> Iterator[None]:
    """Within, the count-th of its system calls of that number does not take place (ENOSYS). On x86_64."""

    def fail(pid: int, number: int, traced: threading.Event) -> int:
        process = _attached(pid, traced)
        for _ in range(count - 1):
            process.after(number)
        process.skip(number)
        _ptrace(_DETACH, pid)
        return process.result

    with _traced(fail, pid, number):
        yield


@contextlib.contextmanager
def held_after(pid: int, number: int) -> Iterator[threading.Event]:
    """Within, it stands still once its next system call of that number is carried out: the event
    is set then. Where it is not by the end, it is killed."""
    reached, released = threading.Event(), threading.Event()

    def hold(pid: int, number: int, traced: threading.Event) -> int:
        process = _attached(pid, traced)
        process.after(number)
        reached.set()
        released.wait()
        _ptrace(_DETACH, pid)
        return process.result

    with _traced(hold, pid, number):
        try:
            yield reached
        finally:
            released.set()
            if not reached.is_set():
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _traced(trace: Callable[[int, int, threading.Event], int], pid: int, number: int) -> Iterator[Future[int]]:
    """`trace` sets the event when it watches."""
    traced = threading.Event()
    with ThreadPoolExecutor() as pool:  # one thread is the tracer, from the first call to the last
        result = pool.submit(trace, pid, number, traced)
        assert traced.wait(30) and not result.done()
        yield result
        result.result(30)


def _kill_after(pid: int, number: int, traced: threading.Event) -> int:
    return _kill(_attached(pid, traced), number)


def _attached(pid: int, traced: threading.Event) -> Traced:
    try:
        _ptrace(_SEIZE, pid, 0, _TRACESYSGOOD)
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, WALL)
    finally:
        traced.set()
    return Traced(pid)


def _kill_spawned_after(pid: int, number: int, traced: threading.Event) -> int:
    try:
        _ptrace(_SEIZE, pid, 0, _TRACEVFORK | _TRACESYSGOOD)
    finally:
        traced.set()
    return _kill(_spawned_by(pid), number)


def _kill(process: Traced, number: int) -> int:
    process.after(number)
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, WALL)
    return process.result


class Traced:
    """It stands still but while it is told to go on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.result = 0
        """of the system call that `after` waited for"""

    def after(self, call: int) -> None:
        """Goes on until it has returned from that system call."""
        while self._stop(_ENTRY)[0] != call:
            pass
        self.result = self._stop(_EXIT)[0]

    def skip(self, call: int) -> None:
        """Goes on until it is about to make that system call, which then does not take place."""
        while self._stop(_ENTRY)[0] != call:
            pass
        _ptrace(_POKEUSER, self.pid, _ORIG_RAX, -1)

    def _stop(self, kind: int) -> tuple[int, ...]:
        """(number of the system call, its arguments) of the next one of that kind, or (its
        result, …)."""
        while True:
            _ptrace(_SYSCALL, self.pid)
            _, status = os.waitpid(self.pid, WALL)
            assert os.WIFSTOPPED(status), f"it ended: {status:#x}"
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
                _ptrace(_GET_SYSCALL_INFO, self.pid, len(info), ctypes.addressof(info))
                found: tuple[int, ...] = struct.unpack_from("B3xI2Q7Q", info)
                if found[0] == kind:
                    return found[4:]
