"""In the virtual machine, with the Python that worker is installed in: every peer by
turns, as root. Prints one line of JSON: the milliseconds of each.

`launch` compares isolated commands: new namespaces, a cgroup, no network, no access to
the host's files but reading. Each is started the way its own users do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workerd import protocol
from workerd.job import JobSpec

ROUNDS = 10
HOME = Path("/root/peers")
BUNDLE = HOME / "bundle"
QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
ISOLATED = (
    "systemd-run --wait --quiet -p PrivateNetwork=yes -p PrivateTmp=yes -p PrivateDevices=yes -p ProtectSystem=strict "
    "-p ProtectHome=read-only -p ProtectProc=invisible -p PrivateIPC=yes -p ProtectHostname=yes -p NoNewPrivileges=yes "
    "-p ProtectKernelTunables=yes -p ProtectControlGroups=yes -p MemoryMax=256M -p TasksMax=100 /bin/true"
)
BWRAP = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run /bin/true"
Measure = Callable[[], float]
left_out: list[str] = []


def main() -> None:
    _make_bundle()
    launch: dict[str, Measure] = {"bare C loop": _bare, "workerd, job.run to exit seen": _launch}
    launch |= {
        "bwrap --unshare-all": _command(BWRAP),
        "crun run": _container("crun"),
        "runc run": _container("runc"),
        "systemd-run --wait, isolated": _command(ISOLATED),
        "podman run": _command(f"podman run --rm --network none --memory 256m --rootfs {BUNDLE}/rootfs /bin/true"),
        "firejail": _command("firejail --quiet --noprofile --net=none --private-tmp --private-dev /bin/true"),
    }
    lines: dict[str, Measure] = {
        "python3 -I -c pass": _command(f"{sys.executable} -I -c pass"),
        "workerctl run --wait true": _command("workerctl run --wait true"),
        "systemd-run --wait --pipe": _command("systemd-run --wait --pipe --quiet true"),
        "podman run": launch["podman run"],
        "crun run": launch["crun run"],
    }
    done = {"launch": _by_turns(launch), "command line": _by_turns(lines)}
    print(json.dumps({**done, "left_out": sorted(set(left_out))}))


def _by_turns(cases: dict[str, Measure]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {}
    for number in range(ROUNDS + 1):
        for name, measure in tuple(cases.items()):
            try:
                value = measure()
            except (OSError, subprocess.CalledProcessError) as error:
                text = getattr(error, "stderr", None) or str(error).encode()
                left_out.append(f"{name}: {text.decode(errors='replace').strip().splitlines()[-1][:200]}")
                cases = {other: how for other, how in cases.items() if other != name}
                taken.pop(name, None)
                continue
            if number:  # the first one warms the caches
                taken.setdefault(name, []).append(value)
    return taken


def _timed(words: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(words, check=True, **QUIET)
    return (time.perf_counter() - begin) * 1000


def _command(line: str) -> Measure:
    return lambda: _timed(line.split())


def _container(runtime: str) -> Measure:
    def measure() -> float:
        return _timed([runtime, "run", "--bundle", str(BUNDLE), f"bench-{runtime}-{time.monotonic_ns()}"])

    return measure


def _launch() -> float:
    """The second of two: the first one also waits for the connection."""
    params = protocol.RunParams(JobSpec(argv=("/bin/true",)), {"PATH": "/usr/bin:/bin"})
    words = ["/root/launchload", protocol.DEFAULT_SOCKET, "2", "1"]
    text = subprocess.run(words, input=protocol.encode(params), check=True, capture_output=True).stdout
    return float(text.split()[2]) / 1000


def _bare() -> float:
    place = Path("/sys/fs/cgroup/bench-bare")
    place.mkdir(exist_ok=True)
    text = subprocess.run(["/root/bareloop", str(place), "1", "/bin/true"], check=True, capture_output=True).stdout
    return int(text) / 1000


def _make_bundle() -> None:
    """A root of its own with a static shell in it, and the runtime's own default spec."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "run"):
        (BUNDLE / "rootfs" / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2("/bin/busybox", BUNDLE / "rootfs" / "bin" / "true")
    subprocess.run(["crun", "spec"], cwd=BUNDLE, check=True)
    path = BUNDLE / "config.json"
    spec = json.loads(path.read_text())
    spec["process"] |= {"args": ["/bin/true"], "terminal": False}
    path.write_text(json.dumps(spec))


if __name__ == "__main__":
    os.environ["PATH"] = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    main()
