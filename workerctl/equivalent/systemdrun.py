"""A job as a systemd-run(1) command; the properties are those of systemd.exec(5),
systemd.resource-control(5), systemd.service(5) and systemd.kill(5)."""

from __future__ import annotations

import time

from workerctl.commandline import size
from workerctl.equivalent import Translation, scarce, seconds, start_time, whole
from workerctl.signals import name as signal_name

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

IO = (
    ("read_bps", "IOReadBandwidthMax"),
    ("write_bps", "IOWriteBandwidthMax"),
    ("read_iops", "IOReadIOPSMax"),
    ("write_iops", "IOWriteIOPSMax"),
)
MOUNTS = {"rw": "ReadWritePaths", "ro": "ReadOnlyPaths", "bind": "BindPaths", "bind-ro": "BindReadOnlyPaths"}
VIEW = ["ProtectSystem=strict", "PrivateTmp=yes", "PrivateDevices=yes", "PrivateIPC=yes", "ProtectControlGroups=yes"]


def translate(job: dict[str, Any]) -> Translation:
    spec = job["spec"]
    properties = [*_limits(spec["limits"]), *_end(spec), *_view(job, spec)]
    words = ["systemd-run", f"--unit=worker-{spec.get('name') or job['id']}", f"--uid={job['uid']}"]
    words += [f"--gid={job['gid']}", f"--working-directory={spec['cwd']}", "--collect"]
    # exec: that the command could not be executed is told at once, as workerctl does
    words += ["--pty"] if spec["tty"] else ["--service-type=exec"]
    if (start := start_time(job)) is not None:
        words.append(f"--on-calendar={_calendar(start)}")
    words += [f"--description={_labels(spec['labels'])}"] if spec["labels"] else []
    for one in properties:
        words += ["-p", one]
    # systemd puts variables in for $NAME, and one dollar for two.
    return Translation([*words, "--", *(word.replace("$", "$$") for word in spec["argv"])], _without(job))


def _calendar(usec: int) -> str:
    """A moment as systemd.time(7) has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(usec / 1_000_000))


def _labels(labels: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" if value else key for key, value in labels.items())


def _limits(limits: dict[str, Any]) -> list[str]:
    found = []
    if limits["memory"] is not None:
        found += [f"MemoryMax={size(limits['memory'])}", "OOMPolicy=kill"]
    if limits["swap"] is not None or limits["memory"] is not None:
        found.append(f"MemorySwapMax={size(limits['swap'] or 0)}")
    if limits["cpus"] is not None:
        found.append(f"CPUQuota={whole(limits['cpus'] * 100)}%")
    for field, name in (
        ("cpu_weight", "CPUWeight"),
        ("cpuset", "AllowedCPUs"),
        ("pids", "TasksMax"),
        ("io_weight", "IOWeight"),
    ):
        if limits[field] is not None:
            found.append(f"{name}={limits[field]}")
    for disk in limits["io"]:
        for field, name in IO:
            if disk[field] is not None:
                rate = size(disk[field]) if field.endswith("bps") else str(disk[field])
                found.append(f"{name}={_device(disk['device'])} {rate}")
    return found


def _device(device: str | None) -> str:
    return "/" if device is None else device if device.startswith("/") else f"/dev/block/{device}"


def _end(spec: dict[str, Any]) -> list[str]:
    found = [f"TimeoutStopSec={seconds(spec['grace'])}"]
    if spec["timeout"] is not None:
        found.append(f"RuntimeMaxSec={seconds(spec['timeout'])}")
    if spec["stop_signal"] != 15:
        found.append(f"KillSignal={signal_name(spec['stop_signal'])}")
    if spec["restart"]["when"] != "never":
        found.append(f"Restart={spec['restart']['when']}")
        if spec["restart"]["limit"] is not None:
            found += [f"StartLimitBurst={spec['restart']['limit'] + 1}", "StartLimitIntervalSec=infinity"]
    return found


def _view(job: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    found = list(VIEW)
    if not spec["read_only"] and spec["cwd"] != "/":
        found.append(f"ReadWritePaths={spec['cwd']}")
    for mount in spec["mounts"]:
        if mount["kind"] == "tmpfs":
            found.append(f"TemporaryFileSystem={mount['target']}" + (f":size={mount['size']}" if mount["size"] else ""))
        else:
            source = f"{mount['source']}:" if mount["source"] else ""
            found.append(f"{MOUNTS[mount['kind']]}={source}{mount['target']}")
    if spec["rootfs"]:
        found += [f"RootDirectory={spec['rootfs']}", "MountAPIVFS=yes"]
    if spec["net"] == "none":
        found.append("PrivateNetwork=yes")
    found.append("NoNewPrivileges=yes")
    if spec["umask"] != 0o022:  # its own default
        found.append(f"UMask={spec['umask']:04o}")
    if job["uid"] != 0:
        found.append("CapabilityBoundingSet=")
    if spec["cap_add"]:
        names = " ".join(f"CAP_{name.upper().removeprefix('CAP_')}" for name in spec["cap_add"])
        found.append(f"AmbientCapabilities={names}")
    if spec["seccomp"]:
        found.append("SystemCallFilter=@system-service")
    return found


def _without(job: dict[str, Any]) -> list[str]:
    spec = job["spec"]
    without = ["systemd-run before 257 has no process namespace: the command sees all processes (PrivatePIDs=yes)"]
    if spec["net"] == "bridge":
        without.append("systemd-run has no bridge: the command has the machine's own network")
    if spec["publish"]:
        without.append("systemd-run has no --publish: the command opens the machine's ports itself")
    if spec["hostname"]:
        without.append("systemd-run has no --hostname")
    if spec["labels"]:
        without.append("systemd-run has no labels to find units by: they are in its description alone")
    without.append(
        "its output goes to the journal, of all units together: no --max-output, and stdout and stderr in one"
    )
    if any(disk["device"] is None for disk in spec["limits"]["io"]):
        without.append("a disk limit is for one device there: / stands for the disk under it, not for every disk")
    return without + scarce(job, "systemd-run")
