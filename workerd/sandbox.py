"""A JobSpec -> worker-init's plan: the argv that says how the job is confined.

Pure. What the words mean is in workerd/init/plan.c; every decision of policy that
shapes a job's world is made here or before, never in C.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from workerd.job import Job, JobSpec, Mount, MountKind, Net

DEFAULT_TMP_SIZE = 1 << 30
"""bytes of a private /tmp where the job has no memory limit; they are charged to the job"""

# linux/capability.h
_ROOT_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "NET_BIND_SERVICE": 10,
}
ROOT_CAPABILITIES = sum(1 << number for number in _ROOT_CAPABILITIES.values())


class Descriptors(Struct, frozen=True):
    """The fds that PID 1 is given, by the numbers they have in the daemon."""

    cgroup: int
    log: int
    index: int
    exit: int
    status: int
    control: int
    stdin: int | None = None
    net: int | None = None

    def named(self) -> list[tuple[str, int]]:
        return [(name, fd) for name, fd in msgspec.structs.asdict(self).items() if fd is not None]


def plan(job: Job, fds: Descriptors, *, max_output: int, hidden: Sequence[str]) -> list[str]:
    """argv after `worker-init`. `hidden` are directories that no job may see."""
    spec = job.spec
    words = ["run"]
    for name, fd in fds.named():
        words += [f"--{name}-fd", str(fd)]
    words += ["--uid", str(job.uid), "--gid", str(job.gid), "--groups", ",".join(map(str, job.groups))]
    words += ["--capabilities", f"{ROOT_CAPABILITIES if job.uid == 0 else 0:x}"]
    words += ["--umask", f"{spec.umask:o}", "--hostname", spec.hostname or job.id]
    words += ["--max-output", str(max_output), "--tmp-size", str(spec.limits.memory or DEFAULT_TMP_SIZE)]
    if spec.net is not Net.NONE:
        words += ["--net", spec.net.value]
    words += _view(spec)
    for path in hidden:
        words += ["--hide", path]
    return [*words, "--", *spec.argv]


def _view(spec: JobSpec) -> list[str]:
    words = ["--cwd", spec.cwd]
    if spec.read_only:
        words.append("--cwd-read-only")
    if spec.rootfs is not None:
        words += ["--rootfs", spec.rootfs]
    for mount in spec.mounts:
        words += _mount(mount)
    return words


def _mount(mount: Mount) -> list[str]:
    match mount.kind:
        case MountKind.BIND | MountKind.BIND_RO:
            return [f"--{mount.kind}", mount.source or "", mount.target]
        case MountKind.TMPFS:
            return ["--tmpfs", mount.target, str(mount.size or 0)]
        case _:
            return [f"--{mount.kind}", mount.target]
