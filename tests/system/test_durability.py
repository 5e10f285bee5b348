"""What is left of jobs after the machine went down, its disk was full, or its clock was set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vmlib.machine import Machine

COUNT = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.2; done"


@pytest.fixture(autouse=True)
def running(vm: Machine) -> None:
    vm.run(["systemctl", "start", "workerd"], check=True)


def start(vm: Machine, *words: str) -> str:
    return vm.run(["workerctl", "run", *words], check=True).out


def status(vm: Machine, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).stdout)
    return found


def until_lines(vm: Machine, job_id: str, count: int) -> None:
    vm.sh(f"until [ $(workerctl out {job_id} | wc -l) -gt {count} ]; do sleep 0.2; done", timeout=120)


def events(vm: Machine, *words: str) -> list[dict[str, Any]]:
    shown = vm.run(["workerctl", "events", "--no-follow", "--json", *words], check=True).out
    return [json.loads(line) for line in shown.splitlines()]


def reboot(vm: Machine) -> None:
    vm.reboot()


def power_cut(vm: Machine) -> None:
    vm.power_cut()
    vm.start()


class TestTheMachineGoesDown:
    @pytest.mark.parametrize("down", [reboot, power_cut])
    def test_what_ran_is_lost_what_waits_waits_on_what_ended_is_intact(self, vm: Machine, down: Any) -> None:
        ended = start(vm, "--", "sh", "-c", "echo kept; exit 3")
        vm.run(["workerctl", "wait", ended])
        before = status(vm, ended)
        waits, after = start(vm, "--delay", "1h", "true"), start(vm, "--at", "2040-01-01", "true")
        ran = start(vm, "--", "sh", "-c", COUNT)
        until_lines(vm, ran, 5)
        cursor = events(vm, ran)[-1]["cursor"]
        vm.sh("sync")  # output is kept up to the last write-back
        lines = len(vm.run(["workerctl", "out", ran]).out.splitlines())
        down(vm)
        vm.run(["systemctl", "start", "workerd"], check=True)
        vm.run(["workerctl", "wait", "--timeout", "60s", ran])
        found = status(vm, ran)
        assert (found["state"], found["reason"], found["detail"]) == ("finished", "lost", "reboot")
        assert found["exit_code"] is None and found["signal"] is None
        kept = vm.run(["workerctl", "out", ran]).out.splitlines()
        assert len(kept) >= lines - 10 and kept[:5] == ["1", "2", "3", "4", "5"]
        assert "the machine went down" in vm.run(["workerctl", "explain", ran]).out
        assert status(vm, ended) == before and vm.run(["workerctl", "out", ended]).out == "kept"
        assert [status(vm, job_id)["state"] for job_id in (waits, after)] == ["queued", "queued"]
        assert [(event["kind"], event["state"]) for event in events(vm, "--since", cursor, ran)] == [
            ("state", "finished")
        ]
        vm.run(["workerctl", "run", "--wait", "--mem", "64M", "true"], check=True)
        for job_id in (waits, after):
            vm.run(["workerctl", "rm", "-f", job_id], check=True)


class TestFullDisk:
    @pytest.fixture
    def small(self, vm: Machine) -> Iterator[str]:
        """/var/lib/workerd on a disk of its own while this lasts."""
        vm.sh("systemctl stop workerd && mount /dev/vdb /var/lib/workerd && systemctl start workerd")
        yield "/var/lib/workerd"
        vm.sh(
            "systemctl stop workerd && rm -rf /var/lib/workerd/* && umount /var/lib/workerd && systemctl start workerd"
        )

    def test_new_jobs_are_refused_and_running_ones_keep_their_outcome(self, vm: Machine, small: str) -> None:
        vm.sh("rm -f /srv/go")
        job_id = start(vm, "--", "sh", "-c", "echo before; until [ -e /srv/go ]; do sleep 0.2; done; exit 7")
        until_lines(vm, job_id, 0)
        vm.sh(
            f"dd if=/dev/zero of={small}/filler bs=1M 2>/dev/null; dd if=/dev/zero of={small}/rest bs=1k", check=False
        )
        refused = vm.run(["workerctl", "run", "true"])
        assert refused.returncode == 125 and "free space" in refused.err
        vm.sh("touch /srv/go")
        assert vm.run(["workerctl", "wait", job_id]).returncode == 7
        vm.sh("systemctl kill -s KILL workerd", check=False)
        vm.sh(f"rm {small}/filler {small}/rest; systemctl start workerd")
        found = status(vm, job_id)
        assert (found["state"], found["exit_code"]) == ("finished", 7)
        assert vm.run(["workerctl", "out", job_id]).out == "before"
        states = [event["state"] for event in events(vm, job_id)]
        assert states == ["starting", "running", "finished"]
        vm.run(["workerctl", "run", "--wait", "true"], check=True)


class TestClockSet:
    def test_by_a_year_either_way_changes_no_job(self, vm: Machine) -> None:
        ran, waits = start(vm, "--timeout", "1h", "--", "sh", "-c", COUNT), start(vm, "--delay", "1h", "true")
        ended = start(vm, "true")
        vm.run(["workerctl", "wait", ended], check=True)
        for step in ("+366 days", "-732 days", "+366 days"):
            vm.sh(f"date -s \"$(date -d '{step}' '+%Y-%m-%d %H:%M:%S')\"")
            lines = len(vm.run(["workerctl", "out", ran]).out.splitlines())
            until_lines(vm, ran, lines)
            assert [status(vm, job_id)["state"] for job_id in (ran, waits, ended)] == ["running", "queued", "finished"]
        for job_id in (ran, waits):
            vm.run(["workerctl", "rm", "-f", job_id], check=True)
