"""The installed service: units, users, restarts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from vmlib.machine import Machine

CLOCK = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.5; done"


@pytest.fixture(autouse=True, scope="module")
def daemon(vm: Machine) -> None:
    vm.sh("systemctl start workerd")
    for user in ("ada", "bob"):
        vm.sh(f"id {user} >/dev/null 2>&1 || useradd --create-home {user}; usermod -aG worker {user}")
    vm.sh("id eve >/dev/null 2>&1 || useradd --create-home eve")


def start(vm: Machine, *arguments: str, user: str | None = None) -> str:
    out: str = vm.run(["workerctl", "run", *arguments], check=True, user=user).out
    return out


def status(vm: Machine, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).stdout)
    return found


def pid_of(vm: Machine, unit: str) -> str:
    out: str = vm.run(["systemctl", "show", "--property=MainPID", "--value", unit], check=True).out
    return out


class TestNamespaces:
    def test_pid_mount_and_network_are_new(self, vm: Machine) -> None:
        script = "for n in pid mnt net; do readlink /proc/self/ns/$n; done"
        inside = vm.run(["workerctl", "run", "-f", "--", "sh", "-c", script], check=True)
        outside = vm.sh(script)
        assert len(inside.out.split()) == 3
        assert not set(inside.out.split()) & set(outside.out.split())


class TestOwners:
    def test_another_user_cannot_see_read_or_stop(self, vm: Machine) -> None:
        job_id = start(vm, "--name", "adas", "--", "sh", "-c", "echo secret; sleep 1000", user="ada")
        for words in (["status"], ["out"], ["stop"], ["kill"], ["wait"]):
            for ref in (job_id, job_id[:4], "adas"):
                result = vm.run(["workerctl", *words, ref], user="bob")
                assert (result.returncode, result.out) == (125, "")
                assert result.err == f"workerctl: no such job: {ref}"
        assert job_id not in vm.run(["workerctl", "ps", "--all"], check=True, user="bob").out
        assert job_id in vm.run(["workerctl", "ps"], check=True, user="ada").out
        assert job_id in vm.run(["workerctl", "ps"], check=True).out
        assert status(vm, job_id)["state"] == "running"
        vm.run(["workerctl", "stop", job_id], check=True, user="ada")

    def test_job_runs_as_its_caller(self, vm: Machine) -> None:
        result = vm.run(["workerctl", "run", "-f", "id"], check=True, user="ada")
        assert result.out == vm.run(["id"], check=True, user="ada").out

    def test_user_outside_the_group_is_told_which(self, vm: Machine) -> None:
        result = vm.run(["workerctl", "ps"], user="eve")
        assert result.returncode == 125
        assert "group worker" in result.err or "worker" in result.err


class TestRestart:
    def test_job_outlives_restart_crash_and_stop_with_its_limits(self, vm: Machine) -> None:
        job_id = start(vm, "--mem", "64M", "--cpus", "0.5", "--", "sh", "-c", CLOCK + "; exit 3")
        base = f"/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/uid-0/job-{job_id}"
        limits = vm.sh(f"cat {base}/memory.max {base}/cpu.max").out
        pid = status(vm, job_id)["pid"]
        for disturb in (
            "systemctl restart workerd",
            "kill -9 $(systemctl show -p MainPID --value workerd); sleep 1",
            "systemctl daemon-reload",
            "systemctl daemon-reexec",
            "systemctl stop workerd; systemctl start workerd",
        ):
            vm.sh(disturb)
            job = status(vm, job_id)
            assert (job["state"], job["pid"]) == ("running", pid), disturb
            assert vm.sh(f"cat {base}/memory.max {base}/cpu.max").out == limits, disturb
        vm.run(["workerctl", "stop", job_id], check=True)
        lines = vm.run(["workerctl", "out", job_id], check=True).out.split()
        assert lines == [str(i) for i in range(len(lines))]
        assert status(vm, job_id)["reason"] == "stopped"

    def test_outcome_while_the_daemon_was_away_is_known(self, vm: Machine) -> None:
        job_id = start(vm, "--", "sh", "-c", "sleep 3; exit 7")
        vm.sh("systemctl stop workerd.service")
        deadline = time.monotonic() + 120
        exit_file = f"/run/workerd/jobs/{job_id}/exit"
        while vm.run(["grep", "-q", "WKEXIT01", exit_file]).returncode != 0:
            assert time.monotonic() < deadline
        vm.sh("systemctl start workerd")
        vm.run(["workerctl", "wait", job_id])
        job = status(vm, job_id)
        assert (job["reason"], job["exit_code"]) == ("exited", 7)

    def test_first_client_starts_a_stopped_daemon_through_its_socket(self, vm: Machine) -> None:
        vm.sh("systemctl stop workerd.service; systemctl start workerd.socket")
        assert vm.run(["workerctl", "ps"]).returncode == 0
        assert vm.run(["systemctl", "is-active", "workerd"]).out == "active"

    def test_not_running_says_how_to_start_it(self, vm: Machine) -> None:
        vm.sh("systemctl stop workerd.service workerd.socket")
        result = vm.run(["workerctl", "ps"])
        vm.sh("systemctl start workerd")
        assert (result.returncode, "systemctl start workerd" in result.err) == (125, True)

    def test_keepers_end_ends_jobs_and_the_service_comes_back(self, vm: Machine) -> None:
        job_id = start(vm, "sleep", "1000")
        vm.sh("systemctl stop workerd-jobs.service; systemctl start workerd")
        job = status(vm, job_id)
        assert job["state"] == "finished"
        assert job["exit_code"] is None
        assert vm.run(["workerctl", "run", "--wait", "true"]).returncode == 0
