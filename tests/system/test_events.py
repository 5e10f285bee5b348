"""Events where there are controllers: limits that are hit and processes killed for want of
memory are told when it happens, and once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vmlib.machine import Machine

JOBS = "/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs/uid-0"
FORKS = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done"


@pytest.fixture(autouse=True, scope="module")
def daemon(vm: Machine) -> None:
    vm.sh("systemctl start workerd; mkdir -p /srv/events")


def events(vm: Machine, job_id: str) -> list[dict[str, Any]]:
    shown = vm.run(["workerctl", "events", "--no-follow", "--json", job_id], check=True).out
    return [json.loads(line) for line in shown.splitlines()]


def told(vm: Machine, job_id: str, kind: str, times: int = 1) -> list[dict[str, Any]]:
    """The events of this kind, once there are so many."""
    ask = f"workerctl events --no-follow --json --filter kind={kind} {job_id}"
    vm.sh(f"timeout 120 sh -c 'until [ $({ask} | wc -l) -ge {times} ]; do sleep 1; done'")
    return [event for event in events(vm, job_id) if event["kind"] == kind]


def story(found: list[dict[str, Any]]) -> list[str]:
    return [event["state"] if event["kind"] == "state" else event["kind"] for event in found]


@pytest.fixture
def job(vm: Machine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A job that waits for /srv/events/go, and lives on after what it then does."""
    options, script = request.param
    vm.sh("rm -f /srv/events/go*")
    waits = "until [ -e /srv/events/go{} ]; do sleep 0.2; done; "
    script = waits.format("") + script + "; " + waits.format("2") + script + "; sleep 1000"
    job_id = vm.run(["workerctl", "run", *options, "--", "bash", "-c", script], check=True).out
    yield job_id
    vm.run(["workerctl", "rm", "-f", job_id])


def test_a_job_that_runs_out_of_memory_has_a_story_with_its_cause(vm: Machine) -> None:
    made = vm.run(["workerctl", "run", "--mem", "32M", "--", "python3", "-c", "x = bytearray(200 << 20)"]).out
    vm.run(["workerctl", "wait", made])
    found = events(vm, made)
    assert list(dict.fromkeys(story(found))) == ["starting", "running", "limit", "oom", "finished"]
    assert next(event["limit"] for event in found if event["kind"] == "limit") == "memory"
    assert found[-1]["reason"] == "oom" and story(found)[-1] == "finished"


@pytest.mark.parametrize(
    "job", [(("--mem", "64M"), "python3 -c 'x = bytearray(200 << 20)'")], indirect=True, ids=["memory"]
)
def test_an_oom_kill_that_the_job_survives_is_told_while_it_runs(vm: Machine, job: str) -> None:
    vm.sh(f"echo 0 > {JOBS}/job-{job}/memory.oom.group; touch /srv/events/go")
    (first,) = told(vm, job, "oom")
    assert (first["state"], first["count"]) == ("running", 1)
    vm.sh("systemctl kill -s KILL workerd; systemctl start workerd")
    assert len(told(vm, job, "oom")) == 1, "a restarted daemon knows what was told"
    vm.sh("touch /srv/events/go2")
    assert [event["count"] for event in told(vm, job, "oom", 2)] == [1, 2]
    assert json.loads(vm.run(["workerctl", "status", "--json", job]).stdout)["state"] == "running"


@pytest.mark.parametrize("job", [(("--pids", "4"), FORKS)], indirect=True, ids=["pids"])
def test_a_limit_of_processes_that_is_hit_is_told_while_it_runs(vm: Machine, job: str) -> None:
    vm.sh("touch /srv/events/go")
    first = told(vm, job, "limit")[0]
    assert (first["limit"], first["state"]) == ("pids", "running") and first["count"] >= 1
    line = vm.run(["workerctl", "events", "--no-follow", "--filter", "kind=limit", job]).out.splitlines()[0]
    assert "ran against the limit of processes" in line
