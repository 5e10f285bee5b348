"""Whose job it is, and who may ask for more: root, admins, and everybody else."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.host.attackers import OTHER, USER, Attacker
from tests.host.daemon import ENV, Daemon, as_user
from workerd import protocol
from workerd.errors import InvalidParams, NoSuchJob, NotPermitted
from workerd.job import JobSpec, Limits, Net


def told(daemon: Daemon, method: str, params: protocol.Params) -> str:
    """The answer to a request that must fail, all of it but its number."""
    with daemon.client() as client, pytest.raises(NoSuchJob) as caught:
        client.call(method, params)
    return f"{caught.value.kind} {caught.value} {sorted(caught.value.data.items())}"


WAYS: dict[str, Callable[[str], protocol.Params]] = {
    "job.status": protocol.JobParams,
    "job.stop": protocol.StopParams,
    "job.kill": protocol.KillParams,
    "job.wait": lambda ref: protocol.WaitParams((ref,), timeout=0),
    "output.open": protocol.JobParams,
    "output.read": protocol.OutputReadParams,
    "output.wait": lambda ref: protocol.OutputWaitParams(ref, timeout=0),
    "job.pause": protocol.JobParams,
    "job.resume": protocol.JobParams,
    "job.update": lambda ref: protocol.UpdateParams(ref, Limits(pids=5)),
    "job.rerun": protocol.JobParams,
    "job.rename": lambda ref: protocol.RenameParams(ref, name="mine"),
    "job.remove": protocol.RemoveParams,
    "tty.attach": protocol.JobParams,
    "tty.resize": lambda ref: protocol.ResizeParams(ref, protocol.Window(24, 80)),
    "job.list": lambda ref: protocol.ListParams(before=ref),
}


class TestAnothersJob:
    @pytest.mark.parametrize("method", WAYS)
    def test_is_as_if_it_were_not_there(self, daemon: Daemon, place: Path, method: str) -> None:
        """By id, by prefix, by name: word for word what a job that never was gives."""
        name = f"secret-{method.replace('.', '-')}"
        job_id = Attacker(daemon, USER, place).start("sleep", "1000", name=name)
        absent = "zzzzzzzzzz"
        wanted = as_user(OTHER, told, daemon, method, WAYS[method](absent))
        for ref in (job_id, job_id[:5], job_id[:-1], name):
            got = as_user(OTHER, told, daemon, method, WAYS[method](ref))
            assert got.replace(ref, absent) == wanted, ref
        with daemon.client() as client:
            client.call("job.kill", protocol.KillParams(job_id))

    def test_is_in_no_list_and_no_count(self, daemon: Daemon, place: Path) -> None:
        job_id = Attacker(daemon, USER, place).start("sleep", "1000")

        def listed() -> list[Any]:
            with daemon.client() as client:
                return list(client.call("job.list", protocol.ListParams(all=True)).jobs)

        assert as_user(OTHER, listed) == []
        assert job_id in [job.id for job in as_user(USER, listed)]
        with daemon.client() as client:
            client.call("job.kill", protocol.KillParams(job_id))

    def test_its_files_are_closed_to_its_owner_too(self, daemon: Daemon, place: Path) -> None:
        job_id = Attacker(daemon, USER, place).start("true")
        daemon.wait(job_id)

        def opened(path: str) -> bool:
            try:
                os.close(os.open(path, os.O_RDONLY))
            except PermissionError:
                return False
            return True

        for path in (daemon.state, daemon.state / "state.db", daemon.state / "jobs" / job_id / "output"):
            assert not as_user(USER, opened, str(path)), path

    def test_the_descriptor_of_a_log_cannot_be_opened_again_to_write(self, daemon: Daemon, place: Path) -> None:
        job_id = Attacker(daemon, USER, place).start("echo", "so it was")
        daemon.wait(job_id)

        def attempts() -> list[str]:
            found = []
            with daemon.client() as client, client.open_output(job_id) as log:
                for fd in (log.log_fd, log.index_fd):
                    for how in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
                        try:
                            os.close(os.open(f"/proc/self/fd/{fd}", how))
                            found.append("opened")
                        except OSError as error:
                            found.append(str(error.strerror))
            return found

        assert as_user(USER, attempts) == ["Permission denied"] * 6

    def test_who_connected_is_who_asks_whoever_writes_later(self, daemon: Daemon, place: Path) -> None:
        """The connection is made by a user whose process then ends: its pid may be root's
        by now, and it is root that writes. It stays the user's."""
        root_job = daemon.run("sleep", "1000")
        sock = socket.socket(socket.AF_UNIX)
        child = os.fork()
        if child == 0:
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            sock.connect(str(daemon.socket))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        params = protocol.JobParams(root_job)
        message = {"jsonrpc": "2.0", "id": 1, "method": "job.status", "params": params}
        with sock, sock.makefile("rb") as reader:
            sock.sendall(msgspec.json.encode(message) + b"\n")
            answer = msgspec.json.decode(reader.readline())
        assert answer["error"]["data"]["kind"] == "no-such-job"
        with daemon.client() as client:
            client.call("job.kill", protocol.KillParams(root_job))


class TestAsAnother:
    def test_root_may_run_as_anybody_whose_job_it_then_is(self, daemon: Daemon, place: Path) -> None:
        root = Attacker(daemon, 0, place)
        job, text = root.shell(
            "id -u; id -g; grep CapEff /proc/self/status; touch /etc/x; true", user=f"{USER}:{OTHER}"
        )
        assert text.split()[:4] == [str(USER), str(OTHER), "CapEff:", "0000000000000000"]
        assert job.uid == USER

        def status() -> int:
            with daemon.client() as client:
                return int(client.call("job.status", protocol.JobParams(job.id)).uid)

        assert as_user(USER, status) == USER

    def test_an_account_brings_its_groups_and_environment(self, daemon: Daemon, place: Path) -> None:
        entry = pwd.getpwnam("nobody")
        _, text = Attacker(daemon, 0, place).shell("id -un; id -G; echo $HOME $USER $LOGNAME", user="nobody")
        groups = os.getgrouplist("nobody", entry.pw_gid)
        assert text.splitlines()[0] == "nobody"
        assert sorted(map(int, text.splitlines()[1].split())) == sorted(groups)
        assert text.splitlines()[2] == f"{entry.pw_dir} nobody nobody"

    @pytest.mark.parametrize(
        ("user", "message"),
        [
            ("no-such-user", "no such user: 'no-such-user'"),
            ("987654", "no such user: '987654'; say which group: 987654:GID"),
            ("0:no-such-group", "no such group"),
            ("4294967295:0", "is no id"),
            ("0:4294967295", "is no id"),
            ("99999999999999:0", "is no id"),
            ("", "length >= 1"),
            (":0", "no such user"),
        ],
    )
    def test_who_is_nobody_is_said(self, daemon: Daemon, place: Path, user: str, message: str) -> None:
        with pytest.raises(InvalidParams, match=message):
            Attacker(daemon, 0, place).start("true", user=user)

    @pytest.mark.parametrize(
        "spec",
        [
            {"user": "root"},
            {"user": "no-such-user"},
            {"user": str(USER)},
            {"cap_add": ("SYS_ADMIN",)},
            {"seccomp": False},
        ],
    )
    def test_others_may_not_and_learn_nothing(self, daemon: Daemon, place: Path, spec: dict[str, Any]) -> None:
        with pytest.raises(NotPermitted, match="is for admins only"):
            Attacker(daemon, USER, place).start("true", **spec)

    def test_nor_the_hosts_network(self, daemon: Daemon, place: Path) -> None:
        with pytest.raises(NotPermitted, match="host"):
            Attacker(daemon, USER, place).start("true", net=Net.HOST)


class TestCapabilities:
    def test_root_adds_one(self, daemon: Daemon, place: Path) -> None:
        _, text = Attacker(daemon, 0, place).shell("grep Cap /proc/self/status", cap_add=("cap_net_raw", "SYS_NICE"))
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines()}
        wanted = 0b100_1111_1011 | 1 << 13 | 1 << 23
        assert sets == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}

    def test_not_for_somebody_elses_job(self, daemon: Daemon, place: Path) -> None:
        with pytest.raises(InvalidParams, match="--cap-add needs a job of root's, this is uid 4321's"):
            Attacker(daemon, 0, place).start("true", user=f"{USER}:{USER}", cap_add=("NET_RAW",))

    def test_an_unknown_one_is_named(self, daemon: Daemon, place: Path) -> None:
        with pytest.raises(InvalidParams, match="no such capability: 'FLY'"):
            Attacker(daemon, 0, place).start("true", cap_add=("FLY",))


class TestCommandLine:
    def test_the_options(self, daemon: Daemon) -> None:
        done = daemon.ctl(
            "run", "-f", "-w", "/", "--user", f"{USER}:{OTHER}", "--seccomp-profile", "off", "--", "id", "-u"
        )
        assert (done.returncode, done.stdout) == (0, f"{USER}\n".encode())
        done = daemon.ctl("run", "-f", "-w", "/", "--cap-add", "NET_RAW", "grep", "CapEff", "/proc/self/status")
        assert done.stdout.split()[1] == b"00000000000024fb"

    def test_the_callers_home_does_not_go_along(self, daemon: Daemon) -> None:
        environment = {**os.environ, "HOME": "/root/secret", "USER": "caller"}
        done = daemon.ctl("run", "-f", "-w", "/", "--user", "nobody", "env", env=environment)
        assert b"secret" not in done.stdout
        assert b"USER=nobody\n" in done.stdout

    def test_a_wrong_profile(self, daemon: Daemon) -> None:
        done = daemon.ctl("run", "--seccomp-profile", "lax", "true")
        assert (done.returncode, b"choose default or off" in done.stderr) == (125, True)


def test_an_admin_who_is_not_root_may(place: Path) -> None:
    from tests.host.daemon import running

    with running(config=f"admins = [{USER}]\n") as daemon:
        admin = Attacker(daemon, USER, place)
        _, text = admin.shell("id -u", user=f"{OTHER}:{OTHER}")
        assert text == f"{OTHER}\n"
        _, text = admin.shell("id -u; grep CapEff /proc/self/status", user="root", cap_add=("NET_RAW",))
        assert text.split() == ["0", "CapEff:", "00000000000024fb"]
        with pytest.raises(InvalidParams, match="add --user root"):
            admin.start("true", cap_add=("NET_RAW",))
        with daemon.client() as client:
            params = protocol.RunParams(spec=JobSpec(argv=("true",)), env=ENV)
            root_job = client.call("job.run", params).id
        assert as_user(USER, lambda: daemon.wait(root_job).uid) == 0
