"""The installed units: what they shut out and let through, reload, upgrade, uninstall.

That jobs outlive the daemon in every other way is in test_service.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from vmlib import image, layer
from vmlib.machine import Machine

TREE = Path(__file__).resolve().parents[2]
SOURCE = "/usr/src/worker-jobs"
"""where the guest has the tree and the wheels that it was installed from"""
LIMIT = 64 << 20


@pytest.fixture(autouse=True)
def running(vm: Machine) -> None:
    vm.run(["systemctl", "start", "workerd"], check=True)


class Job:
    """A job that writes a line each second."""

    def __init__(self, vm: Machine) -> None:
        self.vm = vm
        count = "n=0; while :; do n=$((n + 1)); echo $n; sleep 1; done"
        self.id = vm.run(["workerctl", "run", f"--mem={LIMIT}", "--", "sh", "-c", count], check=True).out
        self.pid = self.status()["pid"]
        self.cgroup = "/sys/fs/cgroup" + vm.sh(f"cut -d: -f3 /proc/{self.pid}/cgroup").out

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.vm.run(["workerctl", "status", "--json", self.id], check=True).out)
        return found

    def lines(self) -> int:
        return len(self.vm.run(["workerctl", "out", self.id], check=True).out.splitlines())

    def assert_unharmed(self) -> None:
        """The same process, under the same limit, and still writing."""
        before = self.lines()
        status = self.status()
        assert (status["state"], status["pid"]) == ("running", self.pid)
        assert self.vm.sh(f"cat {self.cgroup}/memory.max").out == str(LIMIT)
        self.vm.sh(f"until [ $(workerctl out {self.id} | wc -l) -gt {before} ]; do sleep 0.2; done")


@pytest.fixture
def job(vm: Machine) -> Iterator[Job]:
    made = Job(vm)
    yield made
    vm.run(["workerctl", "stop", made.id])


def main_pid(vm: Machine, unit: str = "workerd") -> int:
    return int(vm.run(["systemctl", "show", "--property=MainPID", "--value", unit], check=True).out)


def wait_for_another_daemon(vm: Machine, old: int) -> None:
    """Until systemd has started, and heard from, one that is not `old`."""
    changed = f'[ "$(systemctl show --property=MainPID --value workerd)" != {old} ]'
    vm.sh(f"until {changed} && systemctl --quiet is-active workerd; do sleep 0.2; done")


class TestInstalled:
    def test_units_are_without_fault(self, vm: Machine) -> None:
        found = vm.sh("systemd-analyze verify workerd.service workerd.socket workerd-jobs.service 2>&1", check=False)
        older = "Unknown key .*'DelegateSubgroup'"  # known from systemd 254 on
        complaints = [line for line in found.out.splitlines() if "worker" in line and not re.search(older, line)]
        assert complaints == []

    @pytest.mark.parametrize(("unit", "tenths"), [("workerd.service", 70), ("workerd-jobs.service", 20)])
    def test_exposure_stays_below(self, vm: Machine, unit: str, tenths: int) -> None:
        vm.run(["systemd-analyze", "security", "--no-pager", f"--threshold={tenths}", unit], check=True)

    def test_socket_is_for_root_and_the_group(self, vm: Machine) -> None:
        assert vm.sh("stat -c '%A %U %G' /run/workerd/workerd.sock").out == "srw-rw---- root worker"

    def test_state_is_closed_to_everybody_else(self, vm: Machine) -> None:
        assert vm.sh("stat -c %a /var/lib/workerd").out == "700"
        assert vm.sh("ls /var/lib/workerd", user="alice", check=False).returncode != 0

    def test_the_users_python_cannot_get_into_the_client(self, vm: Machine) -> None:
        vm.sh("mkdir -p /tmp/evil && echo 'print(\"evil\")' | tee /tmp/evil/json.py >/tmp/evil/socket.py")
        assert "evil" not in vm.sh("cd /tmp/evil; PYTHONPATH=/tmp/evil workerctl version 2>&1").out

    def test_daemon_and_jobs_share_a_slice_but_no_cgroup(self, vm: Machine, job: Job) -> None:
        assert job.cgroup.startswith("/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/")
        assert vm.sh(f"cat /proc/{main_pid(vm)}/cgroup").out == "0::/worker.slice/workerd.service"
        keeper = main_pid(vm, "workerd-jobs")
        assert vm.sh(f"cat /proc/{keeper}/cgroup").out == "0::/worker.slice/workerd-jobs.service/keeper"

    def test_jobs_inherit_nothing_of_the_daemons_privileges(self, vm: Machine) -> None:
        show = "cat /proc/self/oom_score_adj; ulimit -n; grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status"
        out = vm.run(["workerctl", "run", "-f", "--", "sh", "-c", show], check=True).out.split()
        assert out == ["0", "1024", "SigBlk:", "0" * 16, "SigIgn:", "0" * 16, "NoNewPrivs:", "1"]


class TestMetrics:
    PLACE = "/var/lib/prometheus/node-exporter"
    FILE = f"{PLACE}/worker.prom"

    @pytest.fixture
    def timer(self, vm: Machine) -> Iterator[None]:
        vm.sh(f"mkdir -p {self.PLACE} && rm -f {self.FILE}")
        vm.run(["systemctl", "start", "workerd-metrics.timer"], check=True)
        yield
        vm.run(["systemctl", "stop", "workerd-metrics.timer", "workerd-metrics.service"], check=True)
        vm.sh(f"rm -r {self.PLACE}")

    @pytest.mark.usefixtures("timer")
    def test_the_timer_writes_them_again_and_again_for_node_exporter(self, vm: Machine, job: Job) -> None:
        vm.sh(f"until [ -e {self.FILE} ]; do sleep 0.2; done")
        first = vm.sh(f"stat -c %i {self.FILE}").out
        vm.sh(f"until [ $(stat -c %i {self.FILE}) != {first} ]; do sleep 0.2; done")
        families = text_string_to_metric_families(vm.run(["cat", self.FILE], check=True).out + "\n")
        samples = [sample for family in families for sample in family.samples]
        assert [sample.value for sample in samples if sample.name == "worker_up"] == [1]
        assert job.id in {sample.labels.get("id") for sample in samples}
        # Another account reads them, and nothing that was half written is beside them.
        assert vm.sh(f"stat -c %a {self.FILE}; ls -A {self.PLACE}").out.split() == ["644", "worker.prom"]
        assert vm.sh("systemctl show --property=Result --value workerd-metrics.service").out == "success"

    def test_without_node_exporter_nothing_is_done_and_nothing_fails(self, vm: Machine) -> None:
        vm.sh(f"rm -rf {self.PLACE}")
        vm.run(["systemctl", "start", "workerd-metrics.service"], check=True)
        shown = vm.sh("systemctl show --property=ConditionResult --property=ActiveState workerd-metrics.service").out
        assert sorted(shown.split()) == ["ActiveState=inactive", "ConditionResult=no"]


class TestJobsOutliveTheDaemon:
    def test_a_daemon_that_hangs_is_replaced(self, vm: Machine, job: Job) -> None:
        drop_in = "/run/systemd/system/workerd.service.d"
        vm.sh(f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=6\\n' >{drop_in}/test.conf")
        vm.sh("systemctl daemon-reload && systemctl restart workerd")
        try:
            old = main_pid(vm)
            vm.sh(f"kill -STOP {old}")
            wait_for_another_daemon(vm, old)
        finally:
            vm.sh(f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart workerd")
        job.assert_unharmed()

    def test_daemon_reload_and_reexec(self, vm: Machine, job: Job) -> None:
        vm.sh("systemctl daemon-reload && systemctl daemon-reexec")
        job.assert_unharmed()

    def test_reload_keeps_the_daemon(self, vm: Machine, job: Job) -> None:
        old = main_pid(vm)
        vm.run(["systemctl", "reload", "workerd"], check=True)
        job.assert_unharmed()
        assert main_pid(vm) == old

    def test_reload_refuses_a_wrong_configuration_by_its_line(self, vm: Machine, job: Job) -> None:
        old, path = main_pid(vm), "/etc/workerd/workerd.toml"
        vm.sh(f"cp {path} /root/toml && printf 'admins = []\\nadmin = 1\\n' >{path}")
        try:
            assert vm.sh("systemctl reload workerd", check=False).returncode != 0
            assert f"{path}:2:" in vm.sh("journalctl --no-pager -u workerd -n 20").out
        finally:
            vm.sh(f"mv /root/toml {path}")
        job.assert_unharmed()
        assert main_pid(vm) == old


class TestJobsEnd:
    def test_when_the_keeper_dies_and_then_all_comes_back(self, vm: Machine, job: Job) -> None:
        keeper = main_pid(vm, "workerd-jobs")
        vm.sh(f"kill -KILL {keeper}")
        vm.sh(f"until [ $(systemctl show --property=MainPID --value workerd-jobs) != {keeper} ]; do sleep 0.2; done")
        vm.sh("until workerctl run --wait -- true; do sleep 0.5; done", timeout=60)
        status = job.status()
        # systemd sends SIGTERM, then SIGKILL: the job's first process may get to write its record
        assert (status["state"], status["exit_code"]) == ("finished", None)


class TestUpgrade:
    @pytest.fixture
    def load(self, vm: Machine) -> Iterator[None]:
        """Jobs come and go all the while: each is answered, runs once, and ends as it does."""
        vm.sh("rm -rf /srv/load; mkdir /srv/load")
        script = "echo $n >>/srv/load/ran; exit 3"
        one = f'workerctl run --wait --rw /srv/load -- sh -c "{script}"; echo $n $? >>/srv/load/told'
        loop = vm.popen(["sh", "-c", f"n=0; until [ -e /srv/load/stop ]; do n=$((n + 1)); {one}; done"], timeout=None)
        yield
        vm.sh("touch /srv/load/stop")
        said = loop.wait()
        told = [line.split() for line in vm.sh("cat /srv/load/told").out.splitlines()]
        assert len(told) >= 3 and {code for _, code in told} == {"3"}, (told, said.err)
        assert vm.sh("cat /srv/load/ran").out.split() == [number for number, _ in told]

    def test_jobs_go_on_under_the_new_daemon(self, vm: Machine, job: Job, load: None) -> None:
        daemon, keeper = main_pid(vm), main_pid(vm, "workerd-jobs")
        vm.sh("echo '# mine' >>/etc/workerd/workerd.toml")
        said = vm.sh(f"make install WHEELHOUSE={SOURCE}/wheelhouse", cwd=f"{SOURCE}/tree", timeout=500).out
        assert "Upgraded" in said
        assert main_pid(vm) != daemon
        assert main_pid(vm, "workerd-jobs") == keeper
        assert vm.sh(f"readlink /proc/{keeper}/exe").out.endswith("(deleted)")
        assert vm.sh("tail -n 1 /etc/workerd/workerd.toml").out == "# mine"
        job.assert_unharmed()


class TestUninstall:
    @pytest.fixture
    def spare(self) -> Iterator[Machine]:
        """A machine of its own, since the others' would have nothing left to test."""
        with layer.machine(image.default_release(), TREE) as machine:
            machine.start()
            yield machine

    def test_leaves_nothing_running_and_nothing_behind(self, spare: Machine) -> None:
        spare.run(["systemctl", "enable", "--now", "workerd"], check=True)
        job = Job(spare)
        said = spare.sh("make uninstall", cwd=f"{SOURCE}/tree").out
        assert "its jobs end" in said
        assert "Kept /var/lib/workerd" in said
        assert spare.sh(f"[ -e /proc/{job.pid} ]", check=False).returncode != 0
        assert spare.sh("systemctl list-units --all --plain --no-legend 'workerd*'").out == ""
        assert not spare.sh("ls -d /sys/fs/cgroup/worker.slice 2>/dev/null", check=False).out
        spare.sh("make uninstall PURGE=1", cwd=f"{SOURCE}/tree")
        ours = "-name worker -o -name 'worker.*' -o -name 'workerd*' -o -name workerctl"
        left = spare.sh(f"find /usr/local /etc /run /var/lib {ours}", check=False).out
        assert left == ""
        assert spare.sh("getent group worker", check=False).returncode != 0
