"""What worker-init says of a start on the status pipe (workerd/init/report.c), and what it
means. Pure.

Lines, in any order: `pid N` of the first stage's, `error STEP ERRNO DETAIL` of whoever met
one. What a caller named may be in the detail: nothing of it is believed. Lines end with a
newline alone (as `^` and `$` of bytes have it; str.splitlines knows more ends of lines).
"""

from __future__ import annotations

import errno
import os
import re

from workerd.errors import CannotExecute, CommandNotFound, StartFailed

_PID = re.compile(rb"^pid ([2-9]|[1-9][0-9]{1,9})$", re.MULTILINE)
"""of a process that can be a job's: never 0, 1 or -1, which kill(2) takes for others"""
_ERROR = re.compile(rb"^error ([^ \n]+) ([0-9]+) ?(.*)$", re.MULTILINE)
_STEPS = {
    "exec": "cannot run the command",
    "chdir": "working directory",
    "rootfs": "root file system",
    "bind": "bind",
    "rw": "writable path",
    "ro": "read-only path",
    "tmpfs": "tmpfs",
    "stdin": "standard input",
    "capabilities": "capabilities (workerd itself may have been started without some)",
    "network": "cannot set up the job's network",
    "terminal": "terminal",
    "enter": "the job has just ended",
    "target": "place for a mount",
    "hide": "cannot hide from the job",
}
_TREE_NEEDS = "a root tree must have the directories /proc, /sys and /dev, and no links there"
_ADVICE = {
    ("hide", errno.EBUSY): "unmount it on the host, or what is mounted over the way to it",
    ("target", errno.ENOENT): "it must be there, but below /tmp, /var/tmp, /run and /dev/shm, where it is made",
    **{
        (step, errno.EPERM): "kernel file systems, the sockets of /run and / itself are not handed to jobs"
        for step in ("bind", "rw", "ro", "rootfs")
    },
    **{
        (step, number): _TREE_NEEDS
        for step in ("proc", "sys", "dev")
        for number in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
    },
}


def parse(text: bytes, job_id: str, known: int = 0) -> tuple[int, StartFailed | None]:
    """(pid or 0, the failure or None) out of what the status pipe said, in either order; the pid may be `known`."""
    pid = known or pid_of(text)
    if (error := _ERROR.search(text)) is not None:
        step, number, detail = (part.decode(errors="backslashreplace") for part in error.groups())
        return pid, start_error(job_id, step, int(number), detail)
    if not pid:
        return 0, StartFailed("worker-init ended before it said anything", id=job_id, step="init", errno=0)
    return pid, None


def pid_of(text: bytes) -> int:
    """0 where it was not said."""
    said = _PID.search(text)
    return 0 if said is None else int(said[1])


def start_error(job_id: str, step: str, number: int, detail: str) -> StartFailed:
    """What a failed step means, as a sentence."""
    reason = os.strerror(number)
    if step == "exec" and number == errno.ENOENT:
        return CommandNotFound(f"command not found: {detail}", id=job_id, step=step, errno=number)
    what = _STEPS.get(step, f"cannot set up the job ({step})")
    advice = _ADVICE.get((step, number), "")
    message = ": ".join(part for part in (what, detail, reason, advice) if part)
    kind = CannotExecute if step == "exec" else StartFailed
    return kind(message, id=job_id, step=step, errno=number)
