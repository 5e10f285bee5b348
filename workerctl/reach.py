"""Why workerd cannot be reached, in words that say what to do."""

from __future__ import annotations

import errno
import os

from workerctl.wire import DEFAULT_SOCKET
from workerd.errors import ConnectionFailed, NotRunning, SocketForbidden

NOBODY_LISTENS = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


def explain(path: str, error: OSError) -> ConnectionFailed:
    """The error to raise for a failed connect(2) to `path`."""
    if error.errno in NOBODY_LISTENS:
        if path == DEFAULT_SOCKET:
            return NotRunning("workerd is not running: systemctl start workerd")
        return NotRunning(f"workerd is not running: nobody listens on {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SocketForbidden(_forbidden(path))
    return ConnectionFailed(f"cannot connect to {path}: {error.strerror or error}")


def _forbidden(path: str) -> str:
    group = _owning_group(path)
    if group is None:
        return f"no permission to reach {path}: its directory is closed to you; ask the machine's administrator"
    name, joined = group
    if name == "root":  # not a group to join
        return f"no permission to use {path}: it is for root only; try: sudo workerctl …"
    if joined:
        return (
            f"no permission to use {path}: you are in its group, {name}, but this session began before that; "
            "log in again"
        )
    return (
        f"no permission to use {path}: it is for the group {name}; "
        f"join with: sudo usermod -aG {name} $USER, then log in again"
    )


def _owning_group(path: str) -> tuple[str, bool] | None:
    """The socket's group, and whether the account (not yet the session) is in it."""
    import grp
    import pwd

    try:
        gid = os.stat(path).st_gid
    except OSError:
        return None
    try:
        account = pwd.getpwuid(os.getuid())
        joined = gid in os.getgrouplist(account.pw_name, account.pw_gid)
    except (KeyError, OSError):
        joined = False
    try:
        return grp.getgrgid(gid).gr_name, joined
    except KeyError:
        return str(gid), joined
