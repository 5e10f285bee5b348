"""Limits that bite, on the installed system, with the figures that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vmlib.machine import Machine

Figure = Callable[[str], None]
BUSY = "while :; do :; done"


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Figure:
    """Shows a measured figure, whatever pytest captures."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n    measured: {text}", end=" ", flush=True)

    return show


@pytest.fixture(autouse=True, scope="module")
def daemon(vm: Machine) -> None:
    vm.sh("systemctl start workerd")


def run(vm: Machine, *arguments: str, wait: bool = True) -> dict[str, Any]:
    """Run a job as root, to its end; what `status --json` says of it."""
    job_id = vm.run(["workerctl", "run", *arguments], check=True).out
    if wait:
        vm.run(["workerctl", "wait", job_id])
    return status(vm, job_id)


def status(vm: Machine, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.run(["workerctl", "status", "--json", job_id], check=True).stdout)
    return found


def until_gone(vm: Machine, cgroups: str) -> None:
    """What a job had is removed once everybody was told of its end."""
    vm.sh(f"timeout 60 sh -c 'while ls -d {cgroups} 2>/dev/null; do sleep 0.2; done'")


def seconds(job: dict[str, Any]) -> float:
    return float(job["finished"] - job["started"]) / 1e6


class TestMemory:
    def test_job_over_its_limit_ends_as_oom_and_status_says_so(self, vm: Machine, figure: Figure) -> None:
        job = run(vm, "--mem", "32M", "--", "python3", "-c", "x = bytearray(200 << 20)")
        assert (job["state"], job["reason"], job["signal"]) == ("finished", "oom", 9)
        assert job["usage"]["memory_peak"] <= 32 << 20
        assert job["usage"]["oom_kills"] >= 1
        assert "out of memory" in vm.run(["workerctl", "status", job["id"]]).out
        figure(f"peak {job['usage']['memory_peak'] / 2**20:.1f} MiB of 32 MiB")

    def test_same_program_within_its_limit_ends_well(self, vm: Machine) -> None:
        job = run(vm, "--mem", "256M", "--", "python3", "-c", "x = bytearray(100 << 20)")
        assert (job["reason"], job["exit_code"]) == ("exited", 0)

    def test_oom_kills_the_whole_job_and_its_record_is_written(self, vm: Machine) -> None:
        script = "sleep 1000 & echo before; python3 -c 'x = bytearray(200 << 20)'; echo after"
        job = run(vm, "--mem", "32M", "--", "sh", "-c", script)
        assert job["reason"] == "oom"
        assert job["output_end"] == len("before\n")  # PID 1 outlived the kill, drained and told

    def test_no_swap_unless_asked(self, vm: Machine) -> None:
        job = run(vm, "--mem", "64M", "true")
        assert job["effective"] == {**job["effective"], "memory": 64 << 20, "swap": 0}

    def test_fresh_limit_files_hold_what_status_shows(self, vm: Machine) -> None:
        job = run(vm, "--mem", "64M", "--pids", "20", "--cpus", "0.25", "sleep", "1000", wait=False)
        base = f"/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/uid-0/job-{job['id']}"
        files = "memory.max memory.swap.max memory.oom.group pids.max cpu.max"
        assert vm.sh(f"cd {base} && cat {files}").out.split("\n") == ["67108864", "0", "1", "21", "25000 100000"]
        vm.run(["workerctl", "stop", job["id"]], check=True)
        until_gone(vm, base)


class TestCpu:
    def test_half_a_cpu(self, vm: Machine, figure: Figure) -> None:
        job = run(vm, "--cpus", "0.5", "--", "timeout", "8", "sh", "-c", BUSY)
        share = job["usage"]["cpu_usec"] / 1e6 / seconds(job)
        figure(f"{share:.2f} of a CPU with --cpus 0.5, throttled {job['usage']['throttled_usec'] / 1e6:.1f} s")
        assert 0.3 < share < 0.6
        assert job["usage"]["throttled_usec"] > 0

    def test_without_a_limit_it_takes_more(self, vm: Machine, figure: Figure) -> None:
        job = run(vm, "--", "timeout", "4", "sh", "-c", BUSY)
        share = job["usage"]["cpu_usec"] / 1e6 / seconds(job)
        figure(f"{share:.2f} of a CPU without a limit")
        assert share > 0.6

    def test_cpuset(self, vm: Machine) -> None:
        job = run(vm, "--cpuset", "1", "--", "grep", "Cpus_allowed_list", "/proc/self/status")
        assert vm.run(["workerctl", "out", job["id"]]).out.split() == ["Cpus_allowed_list:", "1"]

    def test_cpus_that_are_not_there_are_refused_and_nothing_is_left(self, vm: Machine) -> None:
        result = vm.run(["workerctl", "run", "--cpuset", "99", "true"])
        assert result.returncode == 125
        assert "0-1" in result.err
        until_gone(vm, "/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/uid-0/job-*")


class TestIo:
    @pytest.fixture(autouse=True)
    def disk(self, vm: Machine) -> Iterator[None]:
        vm.sh("mkdir -p /data && { mountpoint -q /data || mount /dev/vdb /data; }")
        yield
        vm.sh("umount /data")

    @pytest.mark.parametrize("option", ["1M", "/data:1M"])
    def test_writes_at_one_mebibyte_a_second(self, vm: Machine, figure: Figure, option: str) -> None:
        write = "dd if=/dev/zero of=/data/big bs=256K count=24 oflag=direct"
        job = run(vm, "--io-write-bps", option, "-w", "/data", "--", "sh", "-c", write)
        assert job["exit_code"] == 0
        rate = job["usage"]["io_write_bytes"] / 2**20 / seconds(job)
        figure(f"{rate:.2f} MiB/s written with --io-write-bps {option}")
        assert rate < 1.3

    def test_buffered_writes_are_held_too(self, vm: Machine, figure: Figure) -> None:
        write = "dd if=/dev/zero of=/data/big bs=256K count=24 conv=fsync"
        job = run(vm, "--mem", "64M", "--io-write-bps", "1M", "-w", "/data", "--", "sh", "-c", write)
        rate = 6 / seconds(job)
        figure(f"{rate:.2f} MiB/s with fsync at the end")
        assert rate < 1.3

    def test_reads_by_operations(self, vm: Machine, figure: Figure) -> None:
        vm.sh("dd if=/dev/zero of=/data/big bs=1M count=1 conv=fsync 2>/dev/null")
        read = "dd if=/data/big of=/dev/null bs=4K count=60 iflag=direct"
        job = run(vm, "--io-read-iops", "20", "-w", "/data", "--", "sh", "-c", read)
        rate = 60 / seconds(job)
        figure(f"{rate:.0f} reads a second with --io-read-iops 20")
        assert rate < 30

    def test_limit_that_cannot_bite_is_a_warning(self, vm: Machine) -> None:
        result = vm.run(["workerctl", "run", "--io-write-bps", "/run:1M", "true"])
        assert result.returncode == 0
        assert "/run" in result.err


class TestPids:
    def test_no_more_processes_than_allowed(self, vm: Machine, figure: Figure) -> None:
        script = "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done; wait"
        job = run(vm, "--pids", "10", "--", "sh", "-c", script)
        out = vm.run(["workerctl", "out", job["id"]])
        assert "fork" in out.out + out.err
        figure(f"{job['usage']['pids_peak']} processes at most, PID 1 included, with --pids 10")
        assert job["usage"]["pids_peak"] <= 11

    def test_fork_bomb_is_contained_and_stopped(self, vm: Machine) -> None:
        job = run(vm, "--pids", "50", "--", "sh", "-c", "b() { b | b & }; b; sleep 1000", wait=False)
        assert vm.run(["workerctl", "ps"]).returncode == 0
        vm.run(["workerctl", "stop", "--grace", "1s", job["id"]], check=True)
        assert status(vm, job["id"])["reason"] == "stopped"
