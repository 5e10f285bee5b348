"""`doctor`: each kind of machine gets the right line, remedy and exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, ctl
from workerctl.doctor import FAILED, OK, WARNING, Finding, Host, examine
from workerctl.verbs.doctor import CODES
from workerd import __version__, protocol

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
HYBRID = (
    "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "31 23 0:27 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
    "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


class Machine(Host):
    """A tree of files; programs answer from a table."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), socket=str(root / "sock"))
        self.programs: dict[str, tuple[int, str]] = {}

    def write(self, path: str, text: str = "") -> None:
        place = Path(self.path(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def run(self, *words: str) -> tuple[int, str] | None:
        return next((answer for start, answer in self.programs.items() if " ".join(words).startswith(start)), None)

    def finding(self, part: str, what: str) -> Finding:
        return next(finding for finding in examine(self, [part]) if finding.what == what)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.write("/proc/sys/kernel/osrelease", "6.1.0-9-amd64\n")
    made.write("/proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n")
    made.write("/proc/pressure/cpu")
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        made.write(f"/proc/self/ns/{name}")
    made.write("/proc/self/mountinfo", UNIFIED)
    made.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
    made.write("/sys/fs/cgroup/worker.slice/workerd-jobs.service/cgroup.controllers", "cpuset cpu io memory pids\n")
    return made


class TestKernel:
    def test_one_that_has_all(self, machine: Machine) -> None:
        assert [finding.level for finding in examine(machine, ["kernel", "cgroups"])] == [OK] * 11

    @pytest.mark.parametrize(
        ("release", "level"),
        [("5.13.19", FAILED), ("5.14.0-rc1", OK), ("6.18.1+", OK), ("4.19", FAILED), ("?", WARNING)],
    )
    def test_versions(self, machine: Machine, release: str, level: str) -> None:
        machine.write("/proc/sys/kernel/osrelease", release)
        assert machine.finding("kernel", "kernel").level == level

    def test_what_was_not_built_in(self, machine: Machine) -> None:
        Path(machine.path("/proc/self/ns/net")).unlink()
        assert machine.finding("kernel", "namespaces").found == "missing: net"
        Path(machine.path("/proc/pressure/cpu")).unlink()
        assert "psi=1" in machine.finding("kernel", "pressure").remedy

    def test_modules_for_networks_of_jobs(self, machine: Machine) -> None:
        modules = "/lib/modules/6.1.0-9-amd64"
        machine.write(f"{modules}/modules.dep", "kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz\n")
        machine.write(f"{modules}/modules.builtin", "kernel/drivers/net/veth.ko\n")
        found = machine.finding("kernel", "bridge network")
        assert (found.level, found.found) == (WARNING, "the kernel lacks nf_tables")
        machine.write("/sys/module/nf_tables/refcnt")
        assert machine.finding("kernel", "bridge network").level == OK


class TestCgroups:
    def test_controllers_that_v1_holds_are_named_with_their_place(self, machine: Machine) -> None:
        machine.write("/proc/self/mountinfo", HYBRID)
        machine.write("/sys/fs/cgroup/unified/cgroup.controllers", "memory\n")
        io = machine.finding("cgroups", "controller io")
        assert (io.level, io.found) == (FAILED, "held by the v1 hierarchy at /sys/fs/cgroup/blkio")
        assert "unified_cgroup_hierarchy=1" in io.remedy
        assert machine.finding("cgroups", "controller cpu").found.endswith("cpu,cpuacct")
        assert machine.finding("cgroups", "controller memory").level == OK
        assert machine.finding("cgroups", "controller pids").found == "not there"

    def test_no_unified_hierarchy(self, machine: Machine) -> None:
        machine.write("/proc/self/mountinfo", "")
        assert [finding.level for finding in examine(machine, ["cgroups"])] == [FAILED]

    def test_what_is_not_delegated(self, machine: Machine) -> None:
        machine.write("/sys/fs/cgroup/worker.slice/workerd-jobs.service/cgroup.controllers", "memory pids")
        assert "cpu, cpuset, io not delegated" in machine.finding("cgroups", "jobs' cgroup").found


class TestUnits:
    def unit(self, machine: Machine, **fields: str) -> Finding:
        machine.write("/run/systemd/system/x")
        known = {"Id": "workerd.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running"}
        shown = {**known, "Result": "success", "UnitFileState": "enabled", "NeedDaemonReload": "no", **fields}
        machine.programs["systemctl show"] = (0, "\n".join(f"{name}={value}" for name, value in shown.items()))
        machine.programs["systemctl --version"] = (0, "systemd 252 (252.1)\n+PAM")
        return machine.finding("units", "workerd.service")

    def test_running(self, machine: Machine) -> None:
        assert self.unit(machine).level == OK
        assert machine.finding("units", "systemd").found == "version 252"

    def test_one_that_will_not_start_says_why(self, machine: Machine) -> None:
        machine.programs["journalctl"] = (0, "cannot limit: memory\n")
        found = self.unit(machine, ActiveState="activating", SubState="auto-restart", Result="exit-code")
        assert found.level == FAILED and found.found == "activating (auto-restart), exit-code: cannot limit: memory"
        assert "journalctl -u workerd.service" in found.remedy

    @pytest.mark.parametrize(
        ("fields", "level", "part"),
        [
            ({"LoadState": "not-found"}, FAILED, "install worker"),
            ({"UnitFileState": "disabled"}, WARNING, "systemctl enable"),
            ({"NeedDaemonReload": "yes"}, WARNING, "daemon-reload"),
        ],
    )
    def test_other_states(self, machine: Machine, fields: dict[str, str], level: str, part: str) -> None:
        found = self.unit(machine, **fields)
        assert found.level == level and part in found.remedy

    def test_two_installations_are_one_too_many(self, machine: Machine) -> None:
        machine.write("/usr/lib/systemd/system/workerd.service")
        assert self.unit(machine).level == OK
        assert "installed twice" not in {finding.what for finding in examine(machine, ["units"])}
        machine.write("/usr/local/lib/systemd/system/workerd.service")
        found = machine.finding("units", "installed twice")
        assert found.level == WARNING and found.found.startswith("in /usr/local/lib/systemd/system and /usr/lib/")

    def test_without_systemd(self, machine: Machine) -> None:
        assert machine.finding("units", "systemd").level == WARNING


class TestPlaces:
    @pytest.mark.parametrize(
        ("available", "files", "read_only", "level"),
        [
            (500, 10**6, 0, OK),
            (60, 10**6, 0, WARNING),
            (4, 10**6, 0, FAILED),
            (500, 99, 0, WARNING),
            (500, 10**6, 1, FAILED),
        ],
    )
    def test_room(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, available: int, files: int, read_only: int, level: str
    ) -> None:
        """A disk of 1000 blocks of a MiB."""
        from workerctl.doctor import places

        disk = os.statvfs_result((1 << 20, 1 << 20, 1000, 0, available, 10**6, 0, files, read_only, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        machine.write("/var/lib/workerd/state.db")
        found = machine.finding("places", places.STATE)
        assert found.level == level and bool(found.remedy) is (level != OK)

    def test_one_that_is_not_there(self, machine: Machine) -> None:
        assert {finding.level for finding in examine(machine, ["places"])} == {WARNING}


class TestPolicy:
    def test_is_asked_of_workerd_itself(self, machine: Machine) -> None:
        machine.write("/etc/workerd/workerd.toml", "[limits\n")
        bad = Host(machine.root)
        found = next(examine(bad, ["policy"]))
        assert found.level == FAILED and "workerd.toml:1" in found.found
        machine.write("/etc/workerd/workerd.toml", "")
        assert next(examine(bad, ["policy"])).level == OK


class TestVerb:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> Iterator[FakeWorkerd]:
        made = FakeWorkerd(tmp_path / "socket")
        made.answers["daemon.info"] = lambda params: protocol.InfoResult(
            __version__, 1, "boot", 1, "/s", "/d", "/c", ("memory",), ("cpu",), 1, 2, 3, 0, True
        )
        yield made
        made.close()

    def test_works_without_a_daemon_and_its_code_tells(self, tmp_path: Path) -> None:
        ran = ctl(None, "doctor", "--json", "--socket", str(tmp_path / "none"))
        found = {finding["check"]: finding for finding in json.loads(ran.out)}
        assert ran.code == 2 and found["socket"]["level"] == found["workerd"]["level"] == "failed"
        assert found["kernel"]["part"] == "kernel" and found["workerd"]["remedy"]

    def test_with_a_daemon(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "doctor", "--json")
        found = {finding["check"]: finding for finding in json.loads(ran.out)}
        assert found["workerd"]["level"] == "ok" and found["limits"]["level"] == "warning"
        assert found["jobs"]["found"] == "1 live, 2 waiting, 3 finished"
        assert ran.code == max(CODES[finding["level"]] for finding in found.values())

    def test_quiet_leaves_out_what_is_well(self, fake: FakeWorkerd) -> None:
        lines = ctl(fake, "doctor", "--quiet").out.decode().splitlines()
        assert not any(line.startswith("ok") for line in lines)
        assert any(line.startswith("warning limits") for line in lines)
