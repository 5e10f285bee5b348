"""workerctl as it is on macOS or Windows: a Python without what those lack.

    python elsewhere.py macos|windows WORD…

The modules are refused to whoever imports them from now on, and the names are gone from
the modules that have them here alone; the standard library, imported before, is spared.
"""

from __future__ import annotations

import _socket
import asyncio
import concurrent.futures
import contextlib
import errno
import importlib.abc
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from types import ModuleType

LINUX_MODULES = {"fcntl", "termios", "pwd", "grp", "resource", "tty", "pty", "spwd", "posix"}
MACOS_HAS = {"fcntl", "termios", "pwd", "grp", "resource", "tty", "pty", "posix"}
GONE = {
    "macos": {
        os: "memfd_create pidfd_open splice sched_getaffinity getresuid MFD_CLOEXEC",
        socket: "MSG_CMSG_CLOEXEC MSG_NOSIGNAL SOCK_SEQPACKET SOCK_CLOEXEC SO_PEERCRED",
        _socket: "MSG_CMSG_CLOEXEC MSG_NOSIGNAL SOCK_SEQPACKET SOCK_CLOEXEC SO_PEERCRED",
        select: "epoll EPOLLIN",
        signal: "SIGSTKFLT SIGPWR SIGRTMIN",
    },
    "windows": {
        os: "memfd_create pidfd_open splice sched_getaffinity getresuid MFD_CLOEXEC getuid geteuid getgroups getpgrp "
        "tcgetpgrp killpg fork setsid sendfile pread pwrite fchmod statvfs set_blocking getloadavg uname WNOHANG",
        socket: "AF_UNIX SCM_RIGHTS CMSG_SPACE CMSG_LEN MSG_CMSG_CLOEXEC MSG_NOSIGNAL MSG_DONTWAIT SOCK_SEQPACKET "
        "SOCK_CLOEXEC SO_PEERCRED send_fds recv_fds",
        _socket: "AF_UNIX SCM_RIGHTS CMSG_SPACE CMSG_LEN MSG_CMSG_CLOEXEC MSG_NOSIGNAL MSG_DONTWAIT SOCK_SEQPACKET "
        "SOCK_CLOEXEC SO_PEERCRED socketpair",
        select: "epoll EPOLLIN poll POLLIN POLLOUT POLLERR POLLHUP",
        signal: "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGTSTP SIGCONT SIGSTOP SIGWINCH SIGALRM pthread_sigmask valid_signals "
        "set_wakeup_fd setitimer ITIMER_REAL SIGURG pthread_kill",
    },
}
"""set_wakeup_fd and valid_signals are there on Windows; without them as well is no harm"""


class Refuse(importlib.abc.MetaPathFinder):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def become(system: str) -> None:
    its_own = importlib.import_module("_signal")  # has no stub
    refused = LINUX_MODULES - (MACOS_HAS if system == "macos" else set())
    for name in refused:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Refuse(refused))
    for module, names in GONE[system].items():
        for name in names.split():
            for one in (module, its_own) if module is signal else (module,):
                with contextlib.suppress(AttributeError):
                    delattr(one, name)
    sys.platform = {"macos": "darwin", "windows": "win32"}[system]
    if system == "windows":
        os.name = "nt"
        delattr(socket.socket, "sendmsg") if "sendmsg" in vars(socket.socket) else None
        socket.socketpair = tcp_pair


def tcp_pair(*_: object, **__: object) -> tuple[socket.socket, socket.socket]:
    """As Windows' Python makes one."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


def main() -> int:
    system, *words = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    become(system)
    if words[0] == "import":
        for name in words[1:]:
            __import__(name)
        return 0
    from workerctl.cli import main as workerctl

    return workerctl(words)


if __name__ == "__main__":
    # What the standard library wants of this system it has by now.
    assert all((asyncio, concurrent.futures, errno, json, shlex, subprocess, tempfile, threading))
    sys.exit(main())
