"""The kernel: its version, namespaces, and the parts that may be left out when it is built."""

from __future__ import annotations

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST = (5, 14)
"""the first with cgroup.kill (cgroups(7)); clone3 into a cgroup is older"""
FOR_NETWORKS = ("bridge", "veth", "nf_tables")
"""the kernel's modules that `--net bridge` uses"""
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def check(host: Host) -> Iterator[Finding]:
    yield _version(host)
    yield _namespaces(host)
    yield _seccomp(host)
    yield _pressure(host)
    yield from _network(host)


def _version(host: Host) -> Finding:
    text = (host.read("/proc/sys/kernel/osrelease") or "").strip()
    numbers = [int(part) for part in text.replace("-", ".").split(".")[:2] if part.isdecimal()]
    if len(numbers) < 2:
        return Finding("kernel", WARNING, "its version cannot be read", "mount /proc")
    if tuple(numbers) < LEAST:
        return Finding("kernel", FAILED, f"Linux {text}", "boot Linux 5.14 or newer: jobs are ended by cgroup.kill")
    return Finding("kernel", OK, f"Linux {text}")


def _namespaces(host: Host) -> Finding:
    missing = [name for name in NAMESPACES if not host.exists(f"/proc/self/ns/{name}")]
    if missing:
        return Finding("namespaces", FAILED, f"missing: {', '.join(missing)}", "boot a kernel that has all of them")
    return Finding("namespaces", OK, ", ".join(NAMESPACES))


def _seccomp(host: Host) -> Finding:
    known = host.read("/proc/sys/kernel/seccomp/actions_avail")
    if known is None or "errno" not in known.split():
        return Finding("seccomp", FAILED, "no filters", "boot a kernel with CONFIG_SECCOMP_FILTER")
    return Finding("seccomp", OK, "filters work")


def _pressure(host: Host) -> Finding:
    if host.exists("/proc/pressure/cpu"):
        return Finding("pressure", OK, "counted (PSI)")
    remedy = "add psi=1 to the kernel's command line; until then nothing is known of jobs' stalls"
    return Finding("pressure", WARNING, "not counted", remedy)


def _network(host: Host) -> Iterator[Finding]:
    """Where the kernel's modules are listed (modprobe(8)); one without a list has all built in, or none."""
    release = (host.read("/proc/sys/kernel/osrelease") or "").strip()
    lists = [host.read(f"/lib/modules/{release}/modules.{kind}") for kind in ("dep", "builtin")]
    if not any(lists):
        return
    paths = [line.partition(":")[0] for text in lists if text for line in text.splitlines()]
    known = {path.rpartition("/")[2].partition(".")[0] for path in paths}
    missing = [name for name in FOR_NETWORKS if name not in known and not host.exists(f"/sys/module/{name}")]
    if missing:
        remedy = "install the kernel's other modules; until then jobs with --net bridge do not start"
        yield Finding("bridge network", WARNING, f"the kernel lacks {', '.join(missing)}", remedy)
    else:
        yield Finding("bridge network", OK, ", ".join(FOR_NETWORKS))
