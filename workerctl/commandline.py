"""From a job's spec back to the `workerctl run` line that asks for the same. Pure.

The environment is not part of it: as with any `run`, it is the caller's own.
"""

from __future__ import annotations

from workerctl.signals import name as signal_name
from workerd.units import format_duration

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

_LIMITS = (
    ("memory", "mem"),
    ("swap", "swap"),
    ("cpus", "cpus"),
    ("cpu_weight", "cpu-weight"),
    ("cpuset", "cpuset"),
    ("pids", "pids"),
    ("io_weight", "io-weight"),
)
_IO = (
    ("read_bps", "io-read-bps"),
    ("write_bps", "io-write-bps"),
    ("read_iops", "io-read-iops"),
    ("write_iops", "io-write-iops"),
)
_TEXTS = (("name", "name"), ("hostname", "hostname"), ("rootfs", "rootfs"), ("user", "user"), ("priority", "priority"))
_TIMES = (("timeout", "timeout"), ("cpu_time", "cpu-time"), ("grace", "grace"))


def command_line(spec: dict[str, Any]) -> str:
    """One line for a shell."""
    import shlex

    words = ["workerctl", "run", *_names(spec), *_limits(spec.get("limits") or {}), *_view(spec), *_end(spec), "--"]
    return shlex.join([*words, *spec["argv"]])


def size(count: int) -> str:
    """Exactly, in the largest unit that divides it."""
    for power, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if count and count % (1 << power) == 0:
            return f"{count >> power}{unit}"
    return str(count)


def duration(usec: int) -> str:
    """Exactly: whole seconds where it is such."""
    return (
        f"{usec // 1_000_000}s"
        if usec % 1_000_000 == 0
        else f"{usec // 1_000}ms"
        if usec % 1_000 == 0
        else format_duration(usec)
    )


def _names(spec: dict[str, Any]) -> list[str]:
    words = []
    for field, option in _TEXTS:
        if spec.get(field):
            words += [f"--{option}", str(spec[field])]
    for key, value in (spec.get("labels") or {}).items():
        words += ["--label", f"{key}={value}" if value else key]
    return [*words, "--workdir", spec.get("cwd") or "/"]  # what is left out on the wire is the root


def _limits(limits: dict[str, Any]) -> list[str]:
    words = []
    for field, option in _LIMITS:
        if (value := limits.get(field)) is not None and not (field == "swap" and value == 0 and limits.get("memory")):
            shown = size(value) if field in ("memory", "swap") else f"{value:g}" if field == "cpus" else str(value)
            words += [f"--{option}", shown]
    for disk in limits.get("io") or ():
        for field, option in _IO:
            if disk.get(field):
                shown = size(disk[field]) if field.endswith("bps") else str(disk[field])
                words += [f"--{option}", f"{disk['device']}:{shown}" if disk.get("device") else shown]
    return words


def _view(spec: dict[str, Any]) -> list[str]:
    words = []
    if spec.get("net", "none") != "none":
        words += ["--net", spec["net"]]
    for port in spec.get("publish") or ():
        protocol = "" if port.get("protocol", "tcp") == "tcp" else f"/{port['protocol']}"
        words += ["--publish", f"{port['host']}:{port['job']}{protocol}"]
    for mount in spec.get("mounts") or ():
        kind, target = mount["kind"], mount["target"]
        if kind in ("bind", "bind-ro"):
            words += ["--bind", f"{mount['source']}:{target}{':ro' if kind == 'bind-ro' else ''}"]
        else:
            words += [f"--{kind}", f"{target}:{size(mount['size'])}" if mount.get("size") else target]
    if spec.get("read_only"):
        words.append("--read-only")
    for capability in spec.get("cap_add") or ():
        words += ["--cap-add", capability]
    if not spec.get("seccomp", True):
        words += ["--seccomp-profile", "off"]
    return words


def _end(spec: dict[str, Any]) -> list[str]:
    words = []
    for field, option in _TIMES:
        if spec.get(field) is not None and not (field == "grace" and spec[field] == 10_000_000):
            words += [f"--{option}", duration(spec[field])]
    if spec.get("on_timeout", "stop") != "stop":
        words += ["--on-timeout", spec["on_timeout"]]
    if spec.get("stop_signal", 15) != 15:
        words += ["--stop-signal", signal_name(spec["stop_signal"])]
    if spec.get("max_output"):
        words += ["--max-output", size(spec["max_output"])]
    restart = spec.get("restart") or {}
    if restart.get("when", "never") != "never":
        words += ["--restart", restart["when"] + (f":{restart['limit']}" if restart.get("limit") else "")]
    if spec.get("remove"):
        words.append("--rm")
    return words
