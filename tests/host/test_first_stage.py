"""The first stage of worker-init that stays (workerd/init/zygote.c): one process for all
launches, of which a job has nothing but its namespaces."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.host.daemon import ENV, Daemon, state_of, until
from tests.host.firststage import NAMESPACES, end, namespaces, stopped, wait_for, words, zygote
from tests.host.tracing import CLONE3, SENDTO, held_after, killed_after, next_spawned_killed_after
from workerd import protocol
from workerd.errors import StartFailed
from workerd.job import JobSpec, Net
from workerd.sandbox import CAPABILITIES, ROOT_CAPABILITIES

KEPT = {str(number) for number in range(20, 35)}
"""the numbers of what it keeps: of the host's mount namespace, and for the next job"""
SECRET = "correct-horse-battery-staple"


def sleepers(daemon: Daemon, count: int) -> list[int]:
    """The pids of so many jobs' PID 1s, asked for at once."""
    with daemon.client() as client:
        params = protocol.RunParams(spec=JobSpec(argv=("sleep", "1000")), env=ENV)
        return [client.status(client.call("job.run", params).id).pid or 0 for _ in range(count)]


def memory_that_was_written(pid: int) -> bytes:
    found = b""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match:
                begin, after = (int(text, 16) for text in match.groups())
                memory.seek(begin)
                found += memory.read(after - begin)
    return found


def descriptors(daemon: Daemon) -> set[str]:
    """Their numbers, in the first stage."""
    return set(os.listdir(f"/proc/{zygote(daemon)}/fd"))


def test_one_process_starts_one_job_after_another(own_daemon: Daemon) -> None:
    seen = {zygote(own_daemon)}
    for _ in range(3):
        assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
        seen.add(zygote(own_daemon))
    assert len(seen) == 1


def test_each_job_has_namespaces_of_its_own(own_daemon: Daemon) -> None:
    """Whether they were made ahead, or there was no time for that."""
    pids = sleepers(own_daemon, 8)
    time.sleep(0.1)
    pids += sleepers(own_daemon, 2)
    time.sleep(0.1)
    everybody = [namespaces(pid) for pid in (*pids, os.getpid())]
    for name in NAMESPACES:
        assert len({each[name] for each in everybody}) == len(everybody), name


def test_it_does_not_stay_in_the_newest_jobs_namespaces(own_daemon: Daemon) -> None:
    theirs = namespaces(sleepers(own_daemon, 1)[0])
    until(lambda: not set(namespaces(zygote(own_daemon)).values()) & {theirs[name] for name in ("net", "ipc")})


def test_it_has_no_more_to_give_by_an_exec_than_a_job_may_have(own_daemon: Daemon) -> None:
    """So a job of root's need not drop the rest: what `cap_add` names is another first stage's."""
    own_daemon.wait(own_daemon.run("true"))
    mine, usual = bounding_set(os.getpid()), sum(1 << CAPABILITIES[name] for name in ROOT_CAPABILITIES)
    assert bounding_set(zygote(own_daemon)) == mine & usual
    added = 1 << CAPABILITIES["NET_ADMIN"]
    with own_daemon.client() as client:
        pid = client.status(own_daemon.run("sleep", "1000", cap_add=("NET_ADMIN",))).pid
    (command,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert bounding_set(int(command)) == mine & (usual | added)
    assert bounding_set(zygote(own_daemon)) == mine & usual


def test_its_end_is_seen_where_workerd_was_started_with_sigchld_ignored() -> None:
    daemon = Daemon()
    daemon.prelude = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    try:
        daemon.start()
        for _ in range(5):
            assert daemon.wait(daemon.run("true", cap_add=("NET_ADMIN",))).exit_code == 0
    finally:
        daemon.close()


def bounding_set(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


def test_nothing_of_a_plan_stays_in_it(own_daemon: Daemon) -> None:
    job_id = own_daemon.run("sh", "-c", f": {SECRET}-argument; sleep 1000", env={**ENV, "TOKEN": f"{SECRET}-variable"})
    with own_daemon.client() as client:
        pid = client.status(job_id).pid
    assert pid is not None
    assert f"{SECRET}-variable".encode() not in memory_that_was_written(zygote(own_daemon))
    assert f"{SECRET}-argument".encode() not in memory_that_was_written(zygote(own_daemon))
    until(lambda: descriptors(own_daemon) - KEPT == {"0", "1", "2", "3", "4"})
    assert SECRET.encode() not in b"".join(words(pid))


def test_a_job_starts_where_it_was_killed(own_daemon: Daemon) -> None:
    runs_on = own_daemon.run("sleep", "1000")
    first = zygote(own_daemon)
    for _ in range(3):
        end(zygote(own_daemon))
        assert own_daemon.wait(own_daemon.run("echo", "well")).exit_code == 0
    assert zygote(own_daemon) != first
    assert own_daemon.process is not None
    assert _zombies(own_daemon.process.pid) == []
    with own_daemon.client() as client:
        assert client.status(runs_on).state == "running"


def test_a_plan_that_it_took_to_its_grave_is_carried_out_by_another(own_daemon: Daemon) -> None:
    own_daemon.wait(own_daemon.run("true"))
    until(lambda: not own_daemon.leftovers())
    pid = zygote(own_daemon)
    os.kill(pid, signal.SIGSTOP)
    with own_daemon.client() as client, ThreadPoolExecutor() as pool:
        asked = pool.submit(own_daemon.run, "true")
        until(lambda: any(own_daemon.runtime.glob("jobs/*/control")))
        client.info()  # is answered in another turn of the daemon's loop: the plan is in the socket
        end(pid)
        assert own_daemon.wait(asked.result(30)).exit_code == 0
    assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
    until(lambda: not own_daemon.leftovers())


def test_a_pid_1_that_it_did_not_live_to_tell_of_is_ended(own_daemon: Daemon) -> None:
    """And its job is started by another one."""
    own_daemon.wait(own_daemon.run("true"))
    with killed_after(zygote(own_daemon), CLONE3) as cloned:
        assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
    assert not Path(f"/proc/{cloned.result()}").exists()
    assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
    assert own_daemon.process is not None
    assert _zombies(own_daemon.process.pid) == []
    until(lambda: not own_daemon.leftovers())


def test_that_of_a_first_stage_of_its_own_is_ended_too(own_daemon: Daemon) -> None:
    """Which its caller is told of: there is no other who would start it."""
    own_daemon.wait(own_daemon.run("true"))
    assert own_daemon.process is not None
    with next_spawned_killed_after(own_daemon.process.pid, CLONE3) as cloned, pytest.raises(StartFailed) as failed:
        own_daemon.run("true", net=Net.HOST)
    assert "ended before it said anything" in str(failed.value)
    assert not Path(f"/proc/{cloned.result()}").exists()
    assert own_daemon.wait(own_daemon.run("true", net=Net.HOST)).exit_code == 0
    assert _zombies(own_daemon.process.pid) == []
    until(lambda: not own_daemon.leftovers())


def test_jobs_start_though_it_does_not_answer(own_daemon: Daemon) -> None:
    """As where it waits for a file system whose server is gone."""
    pid = zygote(own_daemon)
    os.kill(pid, signal.SIGSTOP)
    pidfd = os.pidfd_open(pid)
    with ThreadPoolExecutor() as pool:
        ids = list(pool.map(lambda _: own_daemon.run("true"), range(3)))
    wait_for(pidfd)  # it was killed, and not only passed over
    os.close(pidfd)
    assert [own_daemon.wait(job_id).exit_code for job_id in ids] == [0, 0, 0]
    assert "first stage does not answer" in own_daemon.log.read_text()
    until(lambda: not own_daemon.leftovers())


def test_it_leaves_with_the_daemon(own_daemon: Daemon) -> None:
    own_daemon.run("true")
    pidfd = os.pidfd_open(zygote(own_daemon))
    own_daemon.kill()
    wait_for(pidfd)
    os.close(pidfd)


@pytest.mark.parametrize(
    "env",
    [
        {f"LARGE{number}": "x" * 100_000 for number in range(4)},
        {f"MANY{number}": "" for number in range(6_000)},
    ],
    ids=["large", "many"],
)
def test_what_it_does_not_take_is_started_without_it(own_daemon: Daemon, env: dict[str, str]) -> None:
    with stopped(own_daemon):
        job_id = own_daemon.run("sh", "-c", "env | grep -c '^LARGE.*x$\\|^MANY'", env={**ENV, **env})
        assert own_daemon.wait(job_id).exit_code == 0
    assert own_daemon.output(job_id) == f"{len(env)}\n".encode()


def test_what_a_client_passed_never_comes_to_it(own_daemon: Daemon) -> None:
    """Whoever closes a file of FUSE waits for its server, which is a user's."""
    params = protocol.RunParams(spec=JobSpec(argv=("cat",)), env=ENV, stdin=True, fds=1)
    with stopped(own_daemon), own_daemon.client() as client, open("/etc/hostname", "rb") as stdin:
        job_id = client.call_with_fds("job.run", params, (stdin.fileno(),))[0].id
        assert own_daemon.wait(job_id).exit_code == 0
        assert own_daemon.output(job_id) == Path("/etc/hostname").read_bytes()


def test_it_keeps_to_the_hosts_names(own_daemon: Daemon) -> None:
    """A new UTS namespace takes over the names of the one before."""
    sleepers(own_daemon, 2)
    assert namespaces(zygote(own_daemon))["uts"] == namespaces(os.getpid())["uts"]


def test_a_job_on_the_hosts_network_is_started_without_it(own_daemon: Daemon) -> None:
    with stopped(own_daemon), own_daemon.client() as client:
        job_id = own_daemon.run("sleep", "1000", net=Net.HOST)
        pid = client.status(job_id).pid
    assert pid is not None
    assert namespaces(pid)["net"] == namespaces(os.getpid())["net"]


def _zombies(parent: int) -> list[str]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [child for child in children if state_of(int(child)) == "Z"]


@pytest.mark.parametrize("end_of_line", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\n"])
@pytest.mark.parametrize("what", ["command", "cwd"])
def test_what_a_caller_names_is_no_line_of_the_status(own_daemon: Daemon, end_of_line: str, what: str) -> None:
    """Else it could name the process that is taken for the job's, and killed as such."""
    name = f"/x{end_of_line}pid 999999999{end_of_line}pid zz"
    with pytest.raises(StartFailed) as caught:
        own_daemon.run(*((name,) if what == "command" else ("true",)), cwd=name if what == "cwd" else "/")
    assert caught.value.data["step"] == ("exec" if what == "command" else "chdir")
    assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
    assert own_daemon.process is not None
    assert _zombies(own_daemon.process.pid) == []


def test_how_a_job_ended_is_found_out_while_its_pid_1_ends(own_daemon: Daemon) -> None:
    """And is told when that has ended: then nothing is left that was its own."""
    job_id = own_daemon.run("sleep", "1000")
    with own_daemon.client() as client:
        pid = client.status(job_id).pid
        assert pid is not None
        with held_after(pid, SENDTO) as said:
            client.call("job.kill", protocol.KillParams(job_id, signal.SIGTERM))
            assert said.wait(30)
            for _ in range(3):  # each is answered in another turn of the daemon's loop
                client.info()
            assert client.status(job_id).state == "running"
            (own_daemon.runtime / "jobs" / job_id / "exit").write_bytes(b"")
        assert own_daemon.wait(job_id).signal == signal.SIGTERM


def test_who_says_too_early_that_a_job_is_over_is_not_believed() -> None:
    """Nor what it looked like then; of this job's PID 1 no more is heard before its end."""
    daemon = Daemon()
    daemon.prelude = (
        "from workerd.supervisor import Supervisor\n"
        "watch = Supervisor.watch\n"
        "def said(self, live):\n    watch(self, live)\n    self._ending(live.job.pid)\n"
        "Supervisor.watch = said"
    )
    try:
        daemon.start()
        job = daemon.wait(daemon.run("sh", "-c", "sleep 0.2; echo done; exit 3", cap_add=("NET_ADMIN",)))
        assert (job.exit_code, job.output_end) == (3, len("done\n"))
    finally:
        daemon.close()
