"""The socket and its group: may you connect?"""

from __future__ import annotations

import os
import stat

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "worker"


def check(host: Host) -> Iterator[Finding]:
    yield _group()
    yield from _socket(host)


def _group() -> Finding:
    import grp

    try:
        members = grp.getgrnam(GROUP).gr_mem
    except KeyError:
        return Finding("group", WARNING, f"there is no group {GROUP}", "install again, or: groupadd --system worker")
    return Finding("group", OK, f"{GROUP}: {', '.join(members) or 'no members but root'}")


def _socket(host: Host) -> Iterator[Finding]:
    path = host.socket
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield Finding("socket", FAILED, f"{path} is not there", host.start("workerd.socket"))
        return
    except PermissionError:
        yield Finding("socket", FAILED, f"{path} is out of your reach", "its directory should be 0755: chmod 755 on it")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding("socket", FAILED, f"{path} is no socket", f"rm {path}; systemctl restart workerd.socket")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:
        yield Finding("socket", WARNING, f"{path} is {mode:04o}: everybody may start jobs", f"chmod 660 {path}")
    elif os.access(path, os.W_OK):
        yield Finding("socket", OK, f"{path}, {mode:04o}, yours to use")
    else:
        yield Finding(
            "socket", FAILED, f"{path}, {mode:04o}: not for you", f"sudo usermod -aG {GROUP} $USER; log in anew"
        )
