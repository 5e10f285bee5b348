"""Commands on many machines: Dask's own scheduler, two of its workers, two workerd."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from distributed import Client

from tests.host.cluster import Cluster, cluster, read_line, wait_until
from workerctl import dask as commands
from workerd.errors import InvalidParams
from workerd.job import Job

G = 1 << 30
MACHINES = {"alpha": '[machine]\nmemory = "4G"\n', "beta": '[machine]\nmemory = "2G"\n'}
# What Dask leaves behind in a client's process is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster(MACHINES) as running:
        yield running


@pytest.fixture
def client(made: Cluster) -> Iterator[Client]:
    with Client(made.address, set_as_default=False) as connected:
        yield connected


def jobs_of(made: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(made.ctl("ps", "-a", "--json").stdout)
    return found


def most_at_once(jobs: list[Job], need: dict[str, int]) -> int:
    """The largest sum of what the jobs needed while they ran together. `need` is by id."""
    changes = [(job.started, need[job.id]) for job in jobs] + [(job.finished, -need[job.id]) for job in jobs]
    most = now = 0
    for _, change in sorted(changes, key=lambda change: (change[0] or 0, change[1])):
        now += change
        most = max(most, now)
    return most


class TestPython:
    def test_the_future_of_a_command_is_its_job(self, client: Client) -> None:
        job = commands.submit(client, ["sh", "-c", "exit 3"]).result()
        assert (job.exit_code, job.spec.argv) == (3, ("sh", "-c", "exit 3"))
        assert job.id.partition("/")[0] in MACHINES

    def test_two_hundred_jobs_stay_within_what_each_machine_announces(self, client: Client) -> None:
        sizes = [(1 + number % 4) * G // 4 for number in range(200)]
        futures = [
            commands.submit(client, ["sh", "-c", f"echo {number}; sleep 0.0{number % 9}"], need={"MEMORY": size})
            for number, size in enumerate(sizes)
        ]
        jobs: list[Job] = client.gather(futures)
        assert [job.exit_code for job in jobs] == [0] * 200
        need = {job.id: size for job, size in zip(jobs, sizes, strict=True)}
        for machine, total in (("alpha", 4 * G), ("beta", 2 * G)):
            own = [job for job in jobs if job.id.startswith(f"{machine}/")]
            assert len(own) > 20
            assert most_at_once(own, need) <= total
        outputs = [b"".join(commands.output(client, future)) for future in futures[::20]]
        assert outputs == [b"%d\n" % number for number in range(0, 200, 20)]

    def test_a_job_goes_where_its_memory_is(self, client: Client) -> None:
        futures = commands.map(client, [["true"]] * 6, need={"MEMORY": 3 * G})
        assert Counter(job.id.partition("/")[0] for job in client.gather(futures)) == {"alpha": 6}

    def test_commands_and_ordinary_tasks_depend_on_each_other(self, client: Client) -> None:
        word = client.submit(lambda: "from-a-task", pure=False)
        first = commands.submit(client, ["echo", word, 5])
        second = commands.submit(client, ["echo", "later"], after=[first])
        codes = client.submit(lambda one, two: (one.exit_code, two.exit_code), first, second, pure=False)
        assert codes.result() == (0, 0)
        assert b"".join(commands.output(client, first)) == b"from-a-task 5\n"
        assert second.result().started >= first.result().finished

    def test_what_was_to_succeed_and_did_not_fails_what_depends_on_it(self, client: Client) -> None:
        failing = commands.submit(client, ["false"], check=True)
        dependent = commands.submit(client, ["true"], after=[failing])
        with pytest.raises(commands.CommandFailed, match="exited with 1"):
            dependent.result()

    def test_a_command_is_tried_again_only_if_that_was_asked_for(self, client: Client, made: Cluster) -> None:
        for number, (retries, runs) in enumerate(((0, 1), (2, 3))):
            tag = f"tries-{os.getpid()}-{number}"
            with pytest.raises(commands.CommandFailed):
                commands.submit(client, ["sh", "-c", "exit 9", tag], check=True, retries=retries).result()
            assert sum(job["spec"]["argv"][-1] == tag for job in jobs_of(made)) == runs

    def test_mistakes_are_told_before_anything_is_sent(self, client: Client) -> None:
        with pytest.raises(InvalidParams, match="lots"):
            commands.submit(client, ["true"], mem="lots")
        with pytest.raises(InvalidParams, match="memroy"):
            commands.submit(client, ["true"], limits={"memroy": 1})

    def test_output_is_binary_safe_and_comes_in_bounded_pieces(self, client: Client) -> None:
        script = "head -c 9000000 /dev/zero | tr '\\0' '\\377'; printf '\\0\\1end'"
        future = commands.submit(client, ["sh", "-c", script])
        pieces = list(commands.output(client, future))
        assert max(map(len, pieces)) <= 1 << 20
        assert b"".join(pieces) == b"\xff" * 9_000_000 + b"\0\1end"

    def test_a_command_is_kept_though_its_client_leaves(self, made: Cluster) -> None:
        tag = f"left-{os.getpid()}"
        with Client(made.address, set_as_default=False) as leaving:
            commands.map(leaving, [["sh", "-c", "sleep 0.5", tag]] * 8, need={"MEMORY": G})
            wait_until(lambda: any(job["spec"]["argv"][-1] == tag for job in jobs_of(made)))
        wait_until(lambda: [job["exit_code"] for job in jobs_of(made) if job["spec"]["argv"][-1] == tag] == [0] * 8)


class TestCommandLine:
    def test_exit_codes_and_output_are_those_of_one_machine(self, made: Cluster) -> None:
        ran = made.ctl("run", "-f", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"out\n", b"err\n")
        killed = made.ctl("run", "--wait", "--", "sh", "-c", "kill -9 $$")
        assert killed.returncode == 137
        missing = made.ctl("run", "no-such-command")
        assert (missing.returncode, missing.stderr) == (127, b"workerctl: command not found: no-such-command\n")

    def test_one_job_from_its_start_to_its_end(self, made: Cluster) -> None:
        job = made.ctl("run", "--name", "whole-life", "sh", "-c", "echo begun; exec sleep 60").stdout.decode().strip()
        assert job.partition("/")[0] in MACHINES
        assert job in made.ctl("ps", "-q").stdout.decode().split()
        follow = made.begin("out", "-f", job)
        assert read_line(follow) == b"begun\n"
        assert made.ctl("status", "--format", "{id} {state}", "whole-life").stdout.decode() == f"{job} running\n"
        assert made.ctl("stop", job).returncode == 0
        assert follow.wait(30) == 0
        follow.communicate()
        assert made.ctl("wait", job).returncode == 143
        assert made.ctl("explain", job).stdout.startswith(f"{job}: ".encode())

    def test_what_has_no_room_waits_and_can_be_taken_back(self, made: Cluster) -> None:
        big = made.ctl("run", "--need", "MEMORY=4G", "sleep", "60").stdout.decode().strip()
        waits = made.ctl("run", "--need", "MEMORY=3G", "echo", "at last")
        queued = waits.stdout.decode().strip()
        assert queued.startswith("queue/")
        assert b"no machine has 3G of memory free now" in waits.stderr
        assert made.ctl("status", "--format", "{state}", queued).stdout == b"queued\n"
        other = made.ctl("run", "--need", "MEMORY=3G", "echo", "never").stdout.decode().strip()
        assert made.ctl("stop", other).returncode == 0
        follow = made.begin("out", "-f", queued)
        assert made.ctl("stop", big).returncode == 0
        assert follow.communicate(timeout=30)[0] == b"at last\n"
        assert made.ctl("wait", queued).returncode == 0
        assert made.ctl("status", other).returncode == 125

    def test_what_no_machine_ever_has_is_refused_with_what_there_is(self, made: Cluster) -> None:
        ran = made.ctl("run", "--need", "MEMORY=5G", "true")
        assert ran.returncode == 125
        assert b"no machine of the cluster ever has 5G of memory for you: alpha has 4G of memory" in ran.stderr

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["run", "-i", "cat"], b"neither standard input nor a terminal"),
            (["run", "--delay", "1m", "true"], b"leave out --after, --at and --delay"),
            (["exec", "alpha/x", "true"], b"log in on its machine"),
            (["status", "gamma/x"], b"no machine 'gamma' in the cluster; there is alpha, beta"),
            (["status", "nobody"], b"no job 'nobody' on any machine of the cluster"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_what_cannot_be_is_said_plainly(self, made: Cluster, words: list[str], sentence: bytes) -> None:
        ran = made.ctl(*words)
        assert ran.returncode == 125
        assert sentence in ran.stderr
        assert b"Traceback" not in ran.stderr

    def test_a_killed_client_loses_nothing(self, made: Cluster) -> None:
        staying = made.begin("run", "-f", "--", "sh", "-c", "echo begun; sleep 1; echo ended; exit 4")
        assert read_line(staying) == b"begun\n"
        staying.kill()
        staying.communicate()
        job = next(job for job in jobs_of(made) if "echo ended" in job["spec"]["argv"][-1])
        assert made.ctl("wait", job["id"]).returncode == 4
        assert made.ctl("out", job["id"]).stdout == b"begun\nended\n"
