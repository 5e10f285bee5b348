"""What is installed: Python, the packages that workerd imports, worker-init."""

from __future__ import annotations

import os
import sys

import workerd
from workerctl.doctor import FAILED, OK, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("msgspec", "cgroupspy", "pyroute2", "rich")


def check(host: Host) -> Iterator[Finding]:
    yield Finding("Python", OK, f"{sys.version.split()[0]}, {sys.executable}")
    yield _packages()
    yield _init(host)


def _packages() -> Finding:
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        remedy = "install worker with what it depends on (make install)"
        return Finding("packages", FAILED, f"missing: {', '.join(missing)}", remedy)
    return Finding("packages", OK, ", ".join(PACKAGES))


def _init(host: Host) -> Finding:
    path = os.path.join(os.path.dirname(workerd.__file__), "init", "worker-init")
    if not os.access(path, os.X_OK):
        return Finding("worker-init", FAILED, f"{path} is not there, or not executable", "install again (make install)")
    # Without a plan it says how it is used, and ends.
    ran = host.run(path)
    if ran is None:
        remedy = "install what was built for this architecture, on a file system without noexec"
        return Finding("worker-init", FAILED, f"{path} cannot be executed", remedy)
    return Finding("worker-init", OK, path)
