"""cgroups: is the unified hierarchy there, and does it have the controllers that limit jobs?"""

from __future__ import annotations

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = ("cpu", "cpuset", "io", "memory", "pids")
V1_NAMES = {"blkio": "io"}
KEEPER = "worker.slice/workerd-jobs.service"
UNIFIED = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all on the kernel's command line"


def check(host: Host) -> Iterator[Finding]:
    mount, taken = mounts(host)
    if mount is None:
        yield Finding("cgroup2", FAILED, "not mounted", UNIFIED)
        return
    yield Finding("cgroup2", OK, f"mounted at {mount}")
    offered = (host.read(f"{mount}/cgroup.controllers") or "").split()
    for name in WANTED:
        yield _controller(name, offered, taken)
    yield from _keeper(host, mount, offered)


def mounts(host: Host) -> tuple[str | None, dict[str, str]]:
    """Where cgroup2 is, and which controllers a v1 hierarchy has, with its place
    (proc_pid_mountinfo(5))."""
    unified: str | None = None
    taken: dict[str, str] = {}
    for line in (host.read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            unified = fields[4] if fields[3] == "/" or unified is None else unified
        elif kind[0] == "cgroup":
            taken.update({V1_NAMES.get(name, name): fields[4] for name in kind[2].split(",")})
    return unified, taken


def _controller(name: str, offered: list[str], taken: dict[str, str]) -> Finding:
    what = f"controller {name}"
    if name in offered:
        return Finding(what, OK, "in the unified hierarchy")
    if name in taken:
        return Finding(what, FAILED, f"held by the v1 hierarchy at {taken[name]}", UNIFIED)
    if name == "memory":
        remedy = "add cgroup_enable=memory to the kernel's command line (some boards switch it off)"
    else:
        remedy = "boot a kernel that has it, without cgroup_disable="
    return Finding(what, FAILED, "not there", remedy)


def _keeper(host: Host, mount: str, offered: list[str]) -> Iterator[Finding]:
    jobs = f"{mount}/{KEEPER}"
    if not host.exists(jobs):
        yield Finding("jobs' cgroup", WARNING, f"{jobs} is not there", host.start())
        return
    given = (host.read(f"{jobs}/cgroup.controllers") or "").split()
    missing = [name for name in WANTED if name in offered and name not in given]
    if missing:
        remedy = "systemctl daemon-reload; see Delegate= in: systemctl cat workerd-jobs"
        yield Finding("jobs' cgroup", FAILED, f"{', '.join(missing)} not delegated to {jobs}", remedy)
    else:
        yield Finding("jobs' cgroup", OK, f"{jobs}, delegated: {' '.join(given) or 'nothing'}")
