"""What is installed: Python, the packages that worker imports, worker-init."""

from __future__ import annotations

import os
import sys

import workerd
from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT, DAEMON = ("msgspec", "rich"), ("cgroupspy", "pyroute2")
INSTALL = "install it whole: the Debian package, make install, or pip install 'worker-jobs[daemon]'"
INIT = os.path.join(os.path.dirname(workerd.__file__), "init", "worker-init")


def check(host: Host) -> Iterator[Finding]:
    yield Finding("Python", OK, f"{sys.version.split()[0]}, {sys.executable}")
    missing = [name for name in (*CLIENT, *DAEMON) if not _is_there(name)]
    if missing == list(DAEMON):
        yield Finding("packages", WARNING, "for workerctl alone: workerd cannot run from this", INSTALL)
        return
    yield _packages(missing)
    yield _init(host)


def _is_there(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _packages(missing: list[str]) -> Finding:
    if missing:
        return Finding("packages", FAILED, f"missing: {', '.join(missing)}", INSTALL)
    return Finding("packages", OK, ", ".join((*CLIENT, *DAEMON)))


def _init(host: Host) -> Finding:
    if not os.access(INIT, os.X_OK):
        return Finding("worker-init", FAILED, f"{INIT} is not there, or not executable", INSTALL)
    # Without a plan it says how it is used, and ends.
    ran = host.run(INIT)
    if ran is None:
        remedy = "install what was built for this architecture, on a file system without noexec"
        return Finding("worker-init", FAILED, f"{INIT} cannot be executed", remedy)
    return Finding("worker-init", OK, INIT)
