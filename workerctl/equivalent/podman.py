"""A job as a `podman run` command (podman-run(1)).

Weights are on another scale there: what podman gives the kernel for a number is in the
OCI runtime's conversion (crun(1), "cgroup v2"), which is turned round here.
"""

from __future__ import annotations

from workerctl.commandline import size
from workerctl.equivalent import Translation, scarce, seconds, start_time, whole
from workerctl.signals import name as signal_name

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

IO = (
    ("read_bps", "--device-read-bps"),
    ("write_bps", "--device-write-bps"),
    ("read_iops", "--device-read-iops"),
    ("write_iops", "--device-write-iops"),
)

STOP_TIMEOUT, UMASK = 10, 0o022
"""its own defaults"""


def translate(job: dict[str, Any]) -> Translation:
    spec = job["spec"]
    # Without --init the command would be PID 1, which is deaf to signals that it does not handle.
    words = ["podman", "run", "-it" if spec["tty"] else "--detach", "--init"]
    words += [f"--user={job['uid']}:{job['gid']}", f"--workdir={spec['cwd']}"]
    words += _names(spec) + _limits(spec["limits"]) + _end(spec) + _view(spec)
    root = spec["rootfs"] or "/:O"
    return Translation([*words, "--rootfs", root, *spec["argv"]], _without(job))


def _names(spec: dict[str, Any]) -> list[str]:
    words = [f"--name={spec['name']}"] if spec["name"] else []
    words += [f"--hostname={spec['hostname']}"] if spec["hostname"] else []
    words += [f"--label={key}={value}" for key, value in spec["labels"].items()]
    return words + (["--rm"] if spec["remove"] else [])


def _limits(limits: dict[str, Any]) -> list[str]:
    words = []
    if limits["memory"] is not None:
        # There --memory-swap is both together.
        words += [f"--memory={limits['memory']}", f"--memory-swap={limits['memory'] + (limits['swap'] or 0)}"]
    if limits["cpus"] is not None:
        words.append(f"--cpus={whole(limits['cpus'])}")
    if limits["cpu_weight"] is not None:
        words.append(f"--cpu-shares={shares(limits['cpu_weight'])}")
    if limits["cpuset"] is not None:
        words.append(f"--cpuset-cpus={limits['cpuset']}")
    words.append(f"--pids-limit={-1 if limits['pids'] is None else limits['pids']}")  # its own default is 2048
    if limits["io_weight"] is not None:
        words.append(f"--blkio-weight={block_weight(limits['io_weight'])}")
    for disk in limits["io"]:
        for field, option in IO:
            if disk[field] is not None and (disk["device"] or "").startswith("/dev/"):
                rate = size(disk[field]).lower() if field.endswith("bps") else str(disk[field])
                words.append(f"{option}={disk['device']}:{rate}")
    return words


def shares(weight: int) -> int:
    """cpu.weight = 1 + (shares - 2) * 9999 / 262142, turned round."""
    return -(-(weight - 1) * 262_142 // 9_999) + 2


def block_weight(weight: int) -> int:
    """io.weight = 1 + (weight - 10) * 9999 / 990, turned round."""
    return max(10, round((weight - 1) * 990 / 9_999) + 10)


def _end(spec: dict[str, Any]) -> list[str]:
    grace = max(1, -(-spec["grace"] // 1_000_000))
    words = [] if grace == STOP_TIMEOUT else [f"--stop-timeout={grace}"]
    if spec["timeout"] is not None:
        words.append(f"--timeout={seconds(-(-spec['timeout'] // 1_000_000) * 1_000_000)}")
    if spec["stop_signal"] != 15:
        words.append(f"--stop-signal={signal_name(spec['stop_signal'])}")
    if spec["restart"]["when"] != "never":
        limit = spec["restart"]["limit"]
        words.append(
            f"--restart={spec['restart']['when']}"
            + (f":{limit}" if limit and spec["restart"]["when"] != "always" else "")
        )
    if spec["max_output"]:
        words.append(f"--log-opt=max-size={spec['max_output']}")
    return words


def _view(spec: dict[str, Any]) -> list[str]:
    words = [f"--network={spec['net']}", "--security-opt=no-new-privileges"]
    words += [] if spec["umask"] == UMASK else [f"--umask={spec['umask']:04o}"]
    words += [] if spec["seccomp"] else ["--security-opt=seccomp=unconfined"]
    words += ["--cap-drop=all", *(f"--cap-add={name}" for name in spec["cap_add"])]
    words += [f"--publish={port['host']}:{port['job']}/{port['protocol']}" for port in spec["publish"]]
    if not spec["rootfs"] and not spec["read_only"] and spec["cwd"] != "/":
        words.append(f"--volume={spec['cwd']}:{spec['cwd']}")
    for mount in spec["mounts"]:
        target, kind = mount["target"], mount["kind"]
        if kind == "tmpfs":
            words.append(f"--tmpfs={target}" + (f":size={mount['size']}" if mount["size"] else ""))
        else:
            words.append(
                f"--volume={mount['source'] or target}:{target}" + (":ro" if kind in ("ro", "bind-ro") else "")
            )
    return words + (["--read-only"] if spec["read_only"] else [])


def _without(job: dict[str, Any]) -> list[str]:
    spec = job["spec"]
    without = []
    if not spec["rootfs"]:
        without.append("podman runs images: --rootfs /:O shows it the machine's files, and what it writes is lost")
    if spec["limits"]["swap"] is not None and spec["limits"]["memory"] is None:
        without.append("podman has no --swap without --mem")
    if any(not (disk["device"] or "").startswith("/dev/") for disk in spec["limits"]["io"]):
        without.append("podman limits a disk by its node in /dev alone: name it in --device-read-bps and the like")
    if spec["restart"]["when"] == "always" and spec["restart"]["limit"]:
        without.append("podman has no number of tries with --restart=always")
    if spec["user"]:
        without.append("the supplementary groups of its user: add --group-add for each that the command needs")
    if spec["limits"]["memory"] is not None:
        without.append("podman's limit on memory kills one process of the command, not all of them together")
    if start_time(job) is not None:
        without.append("podman starts at once: use a systemd timer or at(1) (--at, --delay)")
    return without + scarce(job, "podman")
