"""The Debian package where it is to work: installed, upgraded under running jobs, removed, purged.

A machine of its own for each release, bare, and booted once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from vmlib import image, product, sources
from vmlib.errors import BuildFailed
from vmlib.machine import Machine

from tests.packages import build_deb, copy_tree
from workerd import __version__

TREE = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.13")
"""of Debian 12 and 13"""
NEXT = f"{__version__}.1"
CONFIG = "/etc/workerd/workerd.toml"
MEMORY = 64 << 20

# Where files come and go whatever is installed.
NOT_COMPARED = ("/var/lib/dpkg", "/var/log", "/var/lib/systemd/timers", "/var/cache", "/var/tmp", "/home")


class Debs(NamedTuple):
    this: Path
    next: Path


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Debs:
    """This tree's package, and that of a later version."""
    base = tmp_path_factory.mktemp("debs")
    wheelhouse = base / "wheelhouse"
    for python in PYTHONS:
        with product.dependencies(product.survey(TREE).dependencies, python) as wheels:
            shutil.copytree(wheels, wheelhouse, dirs_exist_ok=True)
    tree = copy_tree(base / "tree")
    this = build_deb(tree, wheelhouse, base / "this", *PYTHONS)
    version = tree / "workerd/__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', f'"{NEXT}"'))
    return Debs(this, build_deb(tree, wheelhouse, base / "next", *PYTHONS))


@pytest.fixture(params=image.RELEASES)
def vm(
    request: pytest.FixtureRequest, boot: Callable[..., contextlib.AbstractContextManager[Machine]], debs: Debs
) -> Iterator[Machine]:
    """A bare machine with both packages in /root."""
    with contextlib.ExitStack() as stack:
        try:
            machine = stack.enter_context(boot(request.param, None))
        except BuildFailed:
            if reason := sources.unreachable(request.param):
                pytest.skip(reason)
            raise
        machine.push(debs.this, "/root/this.deb")
        machine.push(debs.next, "/root/next.deb")
        yield machine


def status(vm: Machine, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).out)
    return found


def start(vm: Machine, *words: str, user: str | None = None) -> str:
    job_id: str = vm.run(["workerctl", "run", *words], check=True, user=user).out
    return job_id


def main_pid(vm: Machine, unit: str) -> str:
    pid: str = vm.sh(f"systemctl show --property=MainPID --value {unit}").out
    return pid


def traces(vm: Machine) -> dict[str, set[str]]:
    """All that a package may leave behind, by kind."""
    pruned = " -o ".join(f"-path {path}" for path in NOT_COMPARED)
    commands = {
        "files": f"find / -xdev \\( {pruned} \\) -prune -o -print",
        "runtime": "find /run /tmp -name '*worker*' ! -name 'worker-vm*' -prune",
        "groups": "getent group",
        "cgroups": "ls /sys/fs/cgroup",
        "links": "ls /sys/class/net",
        "tables": "nft list tables",
        "units": "systemctl list-units --all --plain --no-legend 'worker*' | cut -d' ' -f1",
        "failed": "systemctl --failed --plain --no-legend",
    }
    return {kind: set(vm.sh(command).out.splitlines()) for kind, command in commands.items()}


class Life:
    """Its stages, each with what must hold after it."""

    def __init__(self, vm: Machine) -> None:
        self.vm = vm

    def install(self) -> None:
        vm = self.vm
        vm.run(["dpkg", "--install", "/root/this.deb"], check=True)
        for unit in ("workerd.service", "workerd.socket"):
            assert vm.run(["systemctl", "is-active", unit]).out == "active"
            assert vm.run(["systemctl", "is-enabled", unit]).out == "enabled"
        assert vm.sh("systemctl --failed --plain --no-legend").out == ""
        vm.run(["usermod", "--append", "--groups", "worker", "alice"], check=True)
        found = json.loads(vm.run(["workerctl", "doctor", "--json"]).out)
        assert [finding for finding in found if finding["level"] != "ok"] == []

    def limits_bite(self) -> None:
        greedy = "x = bytearray(200 << 20)"
        job_id = start(self.vm, "--mem", "32M", "--", "python3", "-c", greedy, user="alice")
        self.vm.run(["workerctl", "wait", job_id])
        assert status(self.vm, job_id)["reason"] == "oom"
        uid = self.vm.sh("id -u alice").out
        lines = self.vm.run(["journalctl", f"JOB_ID={job_id}", f"UID={uid}", "--output=cat"], check=True).out
        assert lines.splitlines()[0] == f"job {job_id} of uid {uid} runs"
        assert len(lines.splitlines()) == 2

    def upgrade(self) -> None:
        """Under a job that goes on, and one that ends when the files are already new."""
        vm = self.vm
        vm.sh(f"echo '# mine' >>{CONFIG}")
        goes_on = start(vm, f"--mem={MEMORY}", "--", "sleep", "10000", user="alice")
        is_new = f"grep -q {NEXT} /usr/lib/worker/packages/workerd/__init__.py"
        ends = start(vm, "--", "sh", "-c", f"until {is_new}; do sleep 0.5; done; exit 7", user="alice")
        before = status(vm, goes_on)
        daemon, keeper = main_pid(vm, "workerd"), main_pid(vm, "workerd-jobs")
        vm.run(["dpkg", "--install", "/root/next.deb"], check=True)
        assert main_pid(vm, "workerd") != daemon and main_pid(vm, "workerd-jobs") == keeper
        assert json.loads(vm.run(["workerctl", "version", "--json"], check=True).out)["workerd"] == NEXT
        after = status(vm, goes_on)
        assert (after["state"], after["pid"]) == ("running", before["pid"])
        cgroup = vm.sh(f"cut -d: -f3 /proc/{after['pid']}/cgroup").out
        assert vm.sh(f"cat /sys/fs/cgroup{cgroup}/memory.max").out == str(MEMORY)
        assert vm.run(["workerctl", "wait", ends]).returncode == 7
        assert vm.sh(f"tail -n 1 {CONFIG}").out == "# mine"

    def remove(self) -> None:
        """Ends jobs in order, and takes their network down; records and policy stay."""
        vm = self.vm
        start(vm, "--net", "bridge", "--", "sleep", "10000")
        assert vm.run(["ip", "link", "show", "worker0"]).returncode == 0
        said = vm.run(["dpkg", "--remove", "worker-jobs"], check=True).out
        assert "its jobs end now" in said
        assert vm.sh("pgrep -x sleep", check=False).out == ""
        vm.sh(f"test -e {CONFIG} -a -e /var/lib/workerd/state.db")


class TestDebianPackage:
    def test_from_installing_to_purging_it_keeps_its_word(self, vm: Machine) -> None:
        before = traces(vm)
        life = Life(vm)
        life.install()
        life.limits_bite()
        life.upgrade()
        life.remove()
        vm.run(["dpkg", "--purge", "worker-jobs"], check=True)
        after = traces(vm)
        assert {kind: (after[kind] - before[kind], before[kind] - after[kind]) for kind in after} == {
            kind: (set(), set()) for kind in after
        }
