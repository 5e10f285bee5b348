"""A process that is killed between two of its system calls (ptrace(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

CLONE3 = 435
"""asm-generic/unistd.h"""
_SYSCALL, _SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
_O_TRACESYSGOOD = 1
_ENTRY, _EXIT = 1, 2
_INFO_SIZE, _NUMBER_OR_RESULT = 88, struct.Struct("<24xq")
"""struct ptrace_syscall_info"""

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@contextlib.contextmanager
def killed_after(pid: int, number: int) -> Iterator[Future[int]]:
    """Within, it is killed when its next system call of that number is carried out, before it
    does anything else: what that gave."""
    traced = threading.Event()
    with ThreadPoolExecutor() as pool:  # one thread is the tracer, from the first call to the last
        result = pool.submit(_kill_after, pid, number, traced)
        assert traced.wait(30) and not result.done()
        yield result
        result.result(30)


def _kill_after(pid: int, number: int, traced: threading.Event) -> int:
    try:
        _call(_SEIZE, pid, data=_O_TRACESYSGOOD)
        _call(_INTERRUPT, pid)
        os.waitpid(pid, 0)
    finally:
        traced.set()
    entered = None
    while True:
        _call(_SYSCALL, pid)
        os.waitpid(pid, 0)
        info = ctypes.create_string_buffer(_INFO_SIZE)
        _call(_GET_SYSCALL_INFO, pid, _INFO_SIZE, ctypes.addressof(info))
        (value,) = _NUMBER_OR_RESULT.unpack_from(info.raw)
        if info.raw[0] == _ENTRY:
            entered = value
        elif info.raw[0] == _EXIT and entered == number:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return int(value)


def _call(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
