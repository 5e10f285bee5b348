"""The life of jobs where there are controllers: changed limits, and a queue by memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vmlib.machine import Machine

CONFIG = "/etc/workerd/workerd.toml"


@pytest.fixture(autouse=True, scope="module")
def daemon(vm: Machine) -> None:
    vm.sh("systemctl start workerd")


def status(vm: Machine, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).stdout)
    return found


def setting(vm: Machine, job_id: str, name: str) -> str:
    return vm.sh(f"cat /sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/uid-*/job-{job_id}/{name}").out


class TestUpdate:
    @pytest.fixture
    def job_id(self, vm: Machine) -> Iterator[str]:
        made = vm.run(
            ["workerctl", "run", "--mem", "64M", "--cpus", "0.5", "--pids", "20", "sleep", "1000"], check=True
        )
        yield made.out
        vm.run(["workerctl", "rm", "-f", made.out])

    def test_new_limits_are_in_force_and_read_back(self, vm: Machine, job_id: str) -> None:
        vm.run(["workerctl", "update", "--mem", "96M", "--cpus", "0.25", "--pids", "none", job_id], check=True)
        job = status(vm, job_id)
        assert (job["spec"]["limits"]["memory"], job["effective"]["memory"]) == (96 << 20, 96 << 20)
        assert (job["effective"]["cpus"], job["effective"]["pids"]) == (0.25, None)
        assert setting(vm, job_id, "memory.max") == str(96 << 20)
        assert setting(vm, job_id, "cpu.max") == "25000 100000"
        assert setting(vm, job_id, "pids.max") == "max"

    def test_one_part_refused_is_all_refused_and_put_back(self, vm: Machine, job_id: str) -> None:
        before = status(vm, job_id)
        refused = vm.run(["workerctl", "update", "--mem", "96M", "--cpus", "0.25", "--cpuset", "0,999", job_id])
        assert refused.returncode == 125
        after = status(vm, job_id)
        assert (after["spec"], after["effective"]) == (before["spec"], before["effective"])
        assert setting(vm, job_id, "memory.max") == str(64 << 20)
        assert setting(vm, job_id, "cpu.max") == "50000 100000"

    def test_less_memory_than_it_uses_is_refused_and_it_lives(self, vm: Machine) -> None:
        script = "x = bytearray(b'x') * (40 << 20); print('ready', flush=True); import time; time.sleep(1000)"
        made = vm.run(["workerctl", "run", "--mem", "96M", "python3", "-c", script], check=True).out
        vm.sh(f"timeout 120 sh -c 'until workerctl out {made} | grep -q ready; do sleep 1; done'")
        refused = vm.run(["workerctl", "update", "--mem", "8M", made])
        assert refused.returncode == 125
        assert "would kill it" in refused.err
        assert status(vm, made)["state"] == "running"
        vm.run(["workerctl", "rm", "-f", made])


class TestQueue:
    def test_a_job_waits_for_memory_through_a_restart(self, vm: Machine) -> None:
        vm.sh(
            f"mkdir -p /etc/workerd; cp {CONFIG} /tmp/kept 2>/dev/null; echo '[machine]\nmemory = \"100M\"' > {CONFIG}"
        )
        vm.sh("systemctl reload-or-restart workerd")
        try:
            first = vm.run(["workerctl", "run", "--mem", "64M", "sleep", "1000"], check=True).out
            second = vm.run(["workerctl", "run", "--mem", "64M", "true"], check=True).out
            job = status(vm, second)
            assert job["state"] == "queued"
            assert job["waits_for"] == "memory 64M is more than the 36M left of the machine's total of 100M"
            vm.sh("systemctl restart workerd")
            assert status(vm, second)["state"] == "queued"
            vm.run(["workerctl", "stop", "-t0", first], check=True)
            assert vm.run(["workerctl", "wait", second]).returncode == 0
        finally:
            vm.sh(f"if [ -e /tmp/kept ]; then mv /tmp/kept {CONFIG}; else rm {CONFIG}; fi; systemctl restart workerd")
