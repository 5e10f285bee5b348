"""A JobSpec -> worker-init's plan: the argv that says how the job is confined.

Pure. What the words mean is in workerd/init/plan.c; every decision of policy that
shapes a job's world is made here or before, never in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from workerd.job import Job, JobSpec, Mount, MountKind, Net

DEFAULT_TMP_SIZE = 1 << 30
"""bytes of a private /tmp where the job has no memory limit; they are charged to the job"""

CAPABILITIES = {
    name: number
    for number, name in enumerate(
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE".split()
    )
}
"""by name, as linux/capability.h numbers them"""
ROOT_CAPABILITIES = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}
)
"""what a job of root's has; everybody else's has none"""

_ENGINES = ("/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd", "/var/snap/lxd/common/lxd-user")
"""where container engines have sockets outside /run, which lead out of a job's cgroup"""


class Descriptors(Struct, frozen=True):
    """The fds that PID 1 is given with its plan, by their numbers."""

    cgroup: int
    status: int
    go: int
    stdin: int | None = None

    def named(self) -> list[tuple[str, int]]:
        return [(name, fd) for name, fd in msgspec.structs.asdict(self).items() if fd is not None]

    def numbered(self, first: int) -> Descriptors:
        """The same ones, as they are called where they arrive one after the other."""
        return Descriptors(**{name: first + at for at, (name, _) in enumerate(self.named())})


class Interface(Struct, frozen=True):
    """The job's end of its veth, and the files of the daemon's that it sees in /etc."""

    address: str
    """with its prefix: A.B.C.D/N"""
    gateway: str
    files: tuple[tuple[str, str], ...]
    """(where it is, where the job sees it)"""


class EntryDescriptors(Struct, frozen=True):
    """The same for the supervisor of a further command."""

    cgroup: int
    init: int
    leash: int
    status: int
    stdout: int
    stderr: int
    stdin: int | None = None

    def named(self) -> list[tuple[str, int]]:
        return [(name, fd) for name, fd in msgspec.structs.asdict(self).items() if fd is not None]


def plan(
    job: Job,
    fds: Descriptors,
    *,
    max_output: int,
    hidden: Sequence[str],
    interface: Interface | None = None,
    window: tuple[int, int] = (24, 80),
) -> list[str]:
    """argv after `worker-init`. `hidden` are files and directories that no job may see;
    `window` the rows and columns of its terminal, if it has one."""
    spec = job.spec
    words = ["run", *_numbers(fds.named()), *_confinement(job), "--hostname", spec.hostname or job.id]
    if spec.tty:
        words += ["--controlling", "--window", *map(str, window)]
    words += ["--max-output", str(max_output), "--tmp-size", str(spec.limits.memory or DEFAULT_TMP_SIZE)]
    if spec.net is not Net.NONE:
        words += ["--net", spec.net.value]
    if interface is not None:
        words += ["--address", interface.address, "--gateway", interface.gateway]
        for source, target in interface.files:
            words += ["--own-file", source, target]
    words += _view(spec)
    for path in (*hidden, *_ENGINES):
        words += ["--hide", path]
    return [*words, "--", *spec.argv]


def capability(name: str) -> str:
    """A capability's name as CAPABILITIES has it, of one written as cap_sys_time, say.
    Raises KeyError."""
    plain = name.upper().removeprefix("CAP_")
    CAPABILITIES[plain]
    return plain


def _capabilities(job: Job) -> int:
    names = ROOT_CAPABILITIES.union(map(capability, job.spec.cap_add)) if job.uid == 0 else ()
    return sum(1 << CAPABILITIES[name] for name in names)


def entry(job: Job, fds: EntryDescriptors, argv: Sequence[str], *, cwd: str | None, tty: bool) -> list[str]:
    """argv after `worker-init`, for one more command in that job, confined as its own.
    `tty`: its standard output is its terminal."""
    words = ["enter", *_numbers(fds.named()), *_confinement(job), "--cwd", cwd or job.spec.cwd]
    return [*words, *(["--controlling"] if tty else []), "--", *argv]


def _numbers(named: Iterable[tuple[str, int]]) -> list[str]:
    return [word for name, fd in named for word in (f"--{name}-fd", str(fd))]


def _confinement(job: Job) -> list[str]:
    """Who a command of the job runs as, and what it may do: the same for every one."""
    words = ["--uid", str(job.uid), "--gid", str(job.gid), "--groups", ",".join(map(str, job.groups))]
    words += ["--capabilities", f"{_capabilities(job):x}"]
    if not job.spec.seccomp:
        words.append("--no-seccomp")
    return [*words, "--umask", f"{job.spec.umask:o}"]


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
