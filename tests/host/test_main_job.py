"""The main job, end to end, against a real daemon."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.host.daemon import Daemon, as_user
from workerd import protocol
from workerd.errors import CommandNotFound, InvalidParams, NoSuchJob, StartFailed
from workerd.job import Job, JobSpec, Reason, State

NOBODY = 65534


class TestNamespaces:
    def test_every_namespace_is_new(self, daemon: Daemon) -> None:
        names = "cgroup ipc mnt net pid uts".split()
        _, text = daemon.shell("for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done")
        inside = text.split()
        outside = [os.readlink(f"/proc/self/ns/{name}") for name in names]
        assert len(inside) == 6
        assert not set(inside) & set(outside)

    def test_only_the_job_is_in_its_proc(self, daemon: Daemon) -> None:
        _, text = daemon.shell("cd /proc; echo [0-9]*")
        assert text.split()[:2] == ["1", "2"]
        assert len(text.split()) <= 3

    def test_only_loopback_and_it_is_up(self, daemon: Daemon) -> None:
        _, text = daemon.shell("ls /sys/class/net; cat /sys/class/net/lo/flags")
        assert text.split() == ["lo", "0x9"]

    def test_hostname_is_the_jobs_own(self, daemon: Daemon) -> None:
        _, text = daemon.shell("hostname", hostname="alpha")
        assert text == "alpha\n"


class TestView:
    def test_host_files_are_read_only(self, daemon: Daemon) -> None:
        job, text = daemon.shell("touch /etc/worker-was-here")
        assert job.exit_code == 1
        assert "Read-only" in text
        assert not os.path.exists("/etc/worker-was-here")

    def test_tmp_is_private_and_writable(self, daemon: Daemon) -> None:
        job, text = daemon.shell("ls -A /tmp /var/tmp /run /dev/shm | grep -v : ; touch /tmp/a /var/tmp/a /dev/shm/a")
        assert job.exit_code == 0
        assert text.split() == []

    def test_working_directory_is_writable(self, daemon: Daemon) -> None:
        place = daemon.base / "work"
        place.mkdir()
        job, _ = daemon.shell("echo hi > made; pwd", cwd=str(place))
        assert job.exit_code == 0
        assert (place / "made").read_text() == "hi\n"

    def test_state_of_the_daemon_is_hidden(self, daemon: Daemon) -> None:
        _, text = daemon.shell("ls -A state run", cwd=str(daemon.base))
        assert text.split() == ["run:", "state:"]

    def test_nothing_of_the_host_is_mounted_beneath(self, daemon: Daemon) -> None:
        _, text = daemon.shell("cut -d' ' -f5 /proc/self/mountinfo | sort | uniq -d")
        assert set(text.split()) <= {"/dev/shm"}


class TestSignals:
    def test_none_is_blocked_or_ignored(self, daemon: Daemon) -> None:
        _, text = daemon.shell("grep -E '^Sig(Blk|Ign)' /proc/self/status")
        assert [line.split()[1].strip("0") for line in text.splitlines()] == ["", ""]


class TestOutcome:
    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    def test_exit_code(self, daemon: Daemon, code: int) -> None:
        job, _ = daemon.shell(f"exit {code}")
        assert (job.state, job.reason, job.exit_code, job.signal) == (State.FINISHED, Reason.EXITED, code, None)

    @pytest.mark.parametrize("number", [1, 9, 11, 15])
    def test_signal(self, daemon: Daemon, number: int) -> None:
        job, _ = daemon.shell(f"kill -{number} $$")
        assert (job.reason, job.exit_code, job.signal) == (Reason.SIGNALED, None, number)

    def test_what_the_command_left_behind_is_killed(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("setsid sleep 1000 & setsid sleep 1000 & exit 3")
        assert job.exit_code == 3
        # The cgroup goes moments after whoever waits is told; what was in it, before.
        for path in daemon.cgroup.glob(f"jobs/uid-*/job-{job.id}/cgroup.procs"):
            with contextlib.suppress(OSError):
                assert path.read_text() == ""

    def test_output_is_all_there_in_order(self, daemon: Daemon) -> None:
        job, text = daemon.shell("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")
        assert text == "".join(f"line {i}\n" for i in range(5000))
        assert job.output_end == len(text)

    def test_output_is_binary_safe(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "printf '\\0\\377\\n\\r\\033[1m'")
        daemon.wait(job_id)
        assert daemon.output(job_id) == b"\0\xff\n\r\x1b[1m"


class TestStartFailures:
    def test_command_not_found(self, daemon: Daemon) -> None:
        with pytest.raises(CommandNotFound, match="command not found: no-such-command") as caught:
            daemon.run("no-such-command")
        assert self.recorded(daemon, caught.value).reason is Reason.START_FAILED

    def test_no_such_directory(self, daemon: Daemon) -> None:
        with pytest.raises(StartFailed, match="working directory: /nowhere: No such file or directory"):
            daemon.run("true", cwd="/nowhere")

    def test_not_executable(self, daemon: Daemon) -> None:
        with pytest.raises(StartFailed, match="Permission denied") as caught:
            daemon.run("/etc/passwd")
        assert caught.value.kind == "cannot-execute"

    def test_nothing_is_left_but_the_record(self, daemon: Daemon) -> None:
        with pytest.raises(StartFailed) as caught:
            daemon.run("no-such-command")
        job_id = caught.value.data["id"]
        assert [path.name for path in daemon.base.glob(f"*/jobs/{job_id}/*")] == ["job"]
        assert not (daemon.runtime / "jobs" / str(job_id)).exists()
        assert not list(daemon.cgroup.glob(f"jobs/uid-*/job-{job_id}"))

    @staticmethod
    def recorded(daemon: Daemon, error: StartFailed) -> Job:
        with daemon.client() as client:
            found: Job = client.call("job.status", protocol.JobParams(str(error.data["id"])))
        return found


class TestBadInput:
    @pytest.mark.parametrize(
        "spec",
        [
            {"argv": ["a\0b"]},
            {"argv": [""]},
            {"argv": []},
            {"argv": ["true"], "cwd": "relative"},
            {"argv": ["true"], "limits": {"memory": 0}},
            {"argv": ["true"], "limits": {"cpus": -1}},
            {"argv": ["true"], "limits": {"pids": 1 << 40}},
            {"argv": ["true"], "no_such_field": 1},
        ],
    )
    def test_is_refused_and_the_daemon_lives_on(self, daemon: Daemon, spec: dict[str, object]) -> None:
        import socket

        import msgspec

        message = {"jsonrpc": "2.0", "id": 7, "method": "job.run", "params": {"spec": spec, "env": {}}}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.socket))
            sock.sendall(msgspec.json.encode(message) + b"\n")
            answer = msgspec.json.decode(sock.makefile("rb").readline())
        assert answer["id"] == 7
        assert answer["error"]["code"] == InvalidParams.code
        with daemon.client() as client:
            assert client.call("daemon.info", protocol.InfoParams()).jobs_live == 0

    def test_megabyte_of_arguments(self, daemon: Daemon) -> None:
        result = daemon.ctl("run", "true", *["x" * 100_000] * 11)
        assert result.returncode == 125
        assert b"1048576" in result.stderr or b"too large" in result.stderr or b"MiB" in result.stderr


class TestOwners:
    def test_anothers_job_does_not_exist(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")

        def attempts() -> list[str]:
            told = []
            with daemon.client() as client:
                for method, params in (
                    ("job.status", protocol.JobParams(job_id)),
                    ("job.status", protocol.JobParams(job_id[:4])),
                    ("job.stop", protocol.StopParams(job_id)),
                    ("job.kill", protocol.KillParams(job_id)),
                    ("job.wait", protocol.WaitParams((job_id,))),
                    ("output.open", protocol.JobParams(job_id)),
                    ("output.read", protocol.OutputReadParams(job_id)),
                    ("output.wait", protocol.OutputWaitParams(job_id)),
                ):
                    try:
                        client.call(method, params)
                        told.append(f"{method}: answered")
                    except NoSuchJob as error:
                        told.append(str(error))
                assert client.call("job.list", protocol.ListParams(all=True)).jobs == ()
            return told

        told = as_user(NOBODY, attempts)
        assert set(told) == {f"no such job: {job_id}", f"no such job: {job_id[:4]}"}
        daemon.ctl("stop", job_id)

    def test_a_job_runs_as_its_caller(self, daemon: Daemon) -> None:
        def run() -> str:
            with daemon.client() as client:
                spec = JobSpec(argv=("sh", "-c", "id -u; id -g; id -G; grep -E 'Cap|NoNew' /proc/self/status"))
                return str(client.call("job.run", protocol.RunParams(spec, {"PATH": "/usr/bin:/bin"})).id)

        job_id = as_user(4321, run, gid=4322, groups=[4323, 4324])
        daemon.wait(job_id)
        lines = daemon.output(job_id).decode().split("\n")
        assert lines[:2] == ["4321", "4322"]
        assert set(lines[2].split()) == {"4322", "4323", "4324"}
        assert [line.split()[1].strip("0") for line in lines[3:8]] == [""] * 5
        assert lines[8].split() == ["NoNewPrivs:", "1"]


class TestStopping:
    def test_term_then_kill_after_the_grace(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
        with daemon.client() as client:
            client.call("output.wait", protocol.OutputWaitParams(job_id, 0))
            job = client.call("job.stop", protocol.StopParams(job_id, grace=300_000))
        assert (job.reason, job.signal) == (Reason.STOPPED, 9)

    def test_a_job_that_heeds_the_signal(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        with daemon.client() as client:
            client.call("output.wait", protocol.OutputWaitParams(job_id, 0))
            job = client.call("job.stop", protocol.StopParams(job_id))
        assert (job.reason, job.exit_code) == (Reason.STOPPED, 5)
        assert daemon.output(job_id) == b"ready\nbye\n"

    def test_kill_sends_a_signal_to_the_command(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        daemon.ctl("kill", "-s", "USR1", job_id)
        job = daemon.wait(job_id)
        assert (job.reason, job.signal) == (Reason.SIGNALED, 10)


class TestRestart:
    def test_a_job_outlives_the_daemon(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "echo one; sleep 1.5; echo two; exit 7")
        own_daemon.restart()
        job = own_daemon.wait(job_id)
        assert (job.reason, job.exit_code) == (Reason.EXITED, 7)
        assert own_daemon.output(job_id) == b"one\ntwo\n"

    def test_an_end_while_the_daemon_is_away_is_known(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "sleep 0.3; exit 9")
        own_daemon.kill()
        exit_file = own_daemon.runtime / "jobs" / job_id / "exit"
        import time

        while exit_file.read_bytes()[:8] != b"WKEXIT01":
            time.sleep(0.02)
        own_daemon.start()
        assert own_daemon.wait(job_id).exit_code == 9

    def test_sigterm_leaves_jobs_running(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sleep", "1000")
        assert own_daemon.stop() == 0
        own_daemon.start()
        with own_daemon.client() as client:
            assert client.call("job.status", protocol.JobParams(job_id)).state is State.RUNNING

    def test_a_killed_init_is_lost_not_exit_0(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        with daemon.client() as client:
            pid = client.call("job.status", protocol.JobParams(job_id)).pid
        assert pid is not None
        os.kill(pid, 9)
        job = daemon.wait(job_id)
        assert (job.reason, job.exit_code) == (Reason.LOST, None)
