"""Jobs that try to take more than they were given, on the installed system: each is held
by its own limit, and the host and the other users go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vmlib.machine import Machine

USERS = (None, "alice")  # root, and an ordinary member of the group


@pytest.fixture(autouse=True, scope="module")
def daemon(vm: Machine) -> Iterator[None]:
    vm.sh("systemctl start workerd; usermod -aG worker alice")
    yield
    vm.sh("workerctl stop --all --grace 0s", check=False)


def run(vm: Machine, user: str | None, *arguments: str) -> dict[str, Any]:
    """Run a job to its end; what `status --json` says of it."""
    job_id = vm.run(["workerctl", "run", *arguments], check=True, user=user).out
    vm.run(["workerctl", "wait", job_id], user=user)
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).stdout)
    return found


@pytest.mark.parametrize("user", USERS)
class TestFilling:
    def test_tmp_is_charged_to_the_job_and_bounded(self, vm: Machine, user: str | None) -> None:
        free = "df --output=avail -B1 /tmp | tail -1"
        before = int(vm.sh(free).out)
        script = "for d in /tmp /var/tmp /dev/shm /run; do dd if=/dev/zero of=$d/big bs=1M count=500 2>&1; done"
        job = run(vm, user, "--mem", "64M", "--", "sh", "-c", script)
        assert job["usage"]["memory_peak"] <= 64 << 20
        assert job["reason"] == "oom" or job["exit_code"] == 0
        assert abs(int(vm.sh(free).out) - before) < 8 << 20  # the host's /tmp had no part in it

    def test_each_has_a_tmp_of_its_own_size(self, vm: Machine, user: str | None) -> None:
        """Whatever the job before it had."""
        script = "for d in /tmp /var/tmp /dev/shm; do echo $(($(stat -f -c %b $d) * $(stat -f -c %S $d))); done"
        for limit, size in (("--mem=48M", 48 << 20), ("--mem=64M", 64 << 20), (None, 1 << 30), (None, 1 << 30)):
            job = run(vm, user, *([limit] if limit else []), "--", "sh", "-c", script)
            assert vm.sh(f"workerctl out {job['id']}").out.split() == [str(size)] * 3

    def test_inodes_of_tmp_are_bounded(self, vm: Machine, user: str | None) -> None:
        script = "mkdir /tmp/d && cd /tmp/d && seq 1 400000 | xargs -n 5000 touch; ls -f | wc -l"
        job = run(vm, user, "--mem", "48M", "--", "sh", "-c", script)
        assert job["usage"]["memory_peak"] <= 48 << 20

    def test_output_is_bounded_and_the_job_is_not_hurt(self, vm: Machine, user: str | None) -> None:
        script = "dd if=/dev/zero bs=1M count=64 2>/dev/null; echo end; exit 5"
        job = run(vm, user, "--max-output", "4M", "--", "sh", "-c", script)
        assert job["exit_code"] == 5
        used = int(vm.sh(f"du -s -B1 /var/lib/workerd/jobs/{job['id']} | cut -f1").out)
        assert used <= 5 << 20
        assert vm.sh(f"workerctl out {job['id']} | tail -c 4").out == "end"


@pytest.mark.parametrize("user", USERS)
def test_fork_bomb_leaves_others_able_to_work(vm: Machine, user: str | None) -> None:
    words = ["--pids", "64", "--", "sh", "-c", "b() { b | b & b; }; b"]
    bomb = vm.run(["workerctl", "run", *words], check=True, user=user)
    other = run(vm, "alice", "--pids", "10", "true")
    assert other["exit_code"] == 0
    vm.run(["workerctl", "stop", "--grace", "0s", bomb.out], user=user)
    found = json.loads(vm.run(["workerctl", "status", "--json", bomb.out], check=True).stdout)
    assert found["state"] == "finished"
    assert found["usage"]["pids_peak"] <= 65
