"""Ways out of a container that others had, tried from inside a job."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.host.attackers import USER, Attacker
from tests.host.daemon import ENV, Daemon, as_user
from tests.host.firststage import end, zygote
from workerd import protocol
from workerd.errors import InvalidParams
from workerd.job import JobSpec, Mount, MountKind


class TestPid1:
    @pytest.mark.parametrize("name", ["exe", "root", "cwd", "fd/3", "mem", "environ", "ns/mnt", "maps", "auxv"])
    def test_nothing_of_it_can_be_opened(self, attacker: Attacker, name: str) -> None:
        """CVE-2019-5736 and its like begin here."""
        _, text = attacker.run(str(attacker.probe), "call", "2", f"/proc/1/{name}", "0")
        assert text in (f"E{errno.EACCES}\n", f"E{errno.EPERM}\n")

    def test_the_program_of_it_cannot_be_overwritten(self, attacker: Attacker) -> None:
        from workerd.__main__ import default_init

        before = Path(default_init()).read_bytes()
        script = f"for f in /proc/1/exe /proc/self/exe {default_init()}; do echo x > $f; done"
        job, _ = attacker.shell(script)
        assert job.exit_code != 0
        assert Path(default_init()).read_bytes() == before

    def test_it_runs_from_a_sealed_copy_that_nobody_can_write(self, own_daemon: Daemon) -> None:
        """Not even root of the host, be it while a process runs from it or when none does;
        nor does an open descriptor of it keep further jobs from starting."""
        job_id = own_daemon.run("sleep", "1000")
        with own_daemon.client() as client:
            pid = client.call("job.status", protocol.JobParams(job_id)).pid
            kept = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
            client.call("job.stop", protocol.StopParams(job_id, grace=0))
        assert "memfd:worker-init" in os.readlink(f"/proc/self/fd/{kept}")
        assert fcntl.fcntl(kept, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with pytest.raises(OSError, match="Text file busy"):
            os.open(f"/proc/self/fd/{kept}", os.O_WRONLY)
        end(zygote(own_daemon))
        writable = os.open(f"/proc/self/fd/{kept}", os.O_WRONLY)
        try:
            with pytest.raises(PermissionError):
                os.write(writable, b"x")
            assert own_daemon.wait(own_daemon.run("true")).exit_code == 0
        finally:
            os.close(writable)
            os.close(kept)

    def test_it_cannot_be_traced(self, attacker: Attacker) -> None:
        assert attacker.run(str(attacker.probe), "ptrace", "1")[1] == f"E{errno.EPERM}\n"
        for process_vm in ("310", "311"):
            _, text = attacker.run(str(attacker.probe), "call", process_vm, "1", "0", "1", "0", "1", "0")
            assert text in (f"E{errno.EPERM}\n", f"E{errno.EFAULT}\n", "0\n")

    def test_nor_from_outside_by_the_same_user(self, daemon: Daemon, place: Path) -> None:
        user = Attacker(daemon, USER, place)
        job_id = user.start("sleep", "1000")
        with daemon.client() as client:
            pid = client.call("job.status", protocol.JobParams(job_id)).pid

        def attempts() -> list[int]:
            found = []
            for name in ("mem", "environ", "maps", "fd", "exe"):
                try:
                    path = f"/proc/{pid}/{name}"
                    os.readlink(path) if name == "exe" else os.listdir(path) if name == "fd" else open(
                        path, "rb"
                    ).read()
                    found.append(0)
                except OSError as error:
                    found.append(error.errno or -1)
            libc = ctypes.CDLL(None, use_errno=True)
            found.append(ctypes.get_errno() if libc.ptrace(16, pid, 0, 0) else 0)
            try:
                os.kill(pid or 0, 9)
                found.append(0)
            except OSError as error:
                found.append(error.errno or -1)
            return found

        assert set(as_user(USER, attempts)) <= {errno.EACCES, errno.EPERM}
        daemon.ctl("kill", job_id)

    @pytest.mark.parametrize("signal", ["KILL", "TERM", "STOP", "SEGV"])
    def test_it_does_not_die_of_its_jobs_signals(self, attacker: Attacker, signal: str) -> None:
        job, text = attacker.shell(f"kill -{signal} 1; echo alive; exit 7")
        assert (job.exit_code, "alive" in text) == (7, True)

    def test_kill_everything(self, attacker: Attacker) -> None:
        job, text = attacker.shell("sleep 1000 & kill -9 -1; wait; echo alive; exit 7")
        assert (job.exit_code, "alive" in text) == (7, True)


class TestDescriptors:
    def test_none_leaks(self, attacker: Attacker) -> None:
        """CVE-2024-21626: standard streams, and what ls itself opens."""
        assert attacker.shell("ls /proc/self/fd")[1].split() == ["0", "1", "2", "3"]

    @pytest.mark.parametrize("flags", [os.O_DIRECTORY, os.O_PATH, os.O_PATH | os.O_DIRECTORY])
    def test_a_directory_is_no_standard_input(self, attacker: Attacker, flags: int) -> None:
        """It would be a way to everything beside it on the host."""

        def call() -> None:
            fd = os.open("/", flags)
            with attacker.daemon.client() as client:
                client.run(JobSpec(argv=("ls", "/proc/self/fd/0/run")), env=ENV, stdin=fd)

        with pytest.raises(InvalidParams, match="a directory cannot be"):
            as_user(attacker.uid, call)


class TestKernel:
    @pytest.mark.parametrize(
        "path",
        [
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/kernel/modprobe",
            "/proc/sys/vm/drop_caches",
            "/proc/sys/fs/binfmt_misc/register",
            "/proc/sysrq-trigger",
            "/proc/irq/default_smp_affinity",
            "/proc/dynamic_debug/control",
            "/proc/mtrr",
            "/sys/kernel/uevent_helper",
            "/sys/power/state",
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/cgroup.freeze",
        ],
    )
    def test_settings_cannot_be_written(self, attacker: Attacker, path: str) -> None:
        _, text = attacker.run(str(attacker.probe), "call", "2", path, str(os.O_WRONLY))
        assert text in {f"E{number}\n" for number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)}

    def test_there_is_no_release_agent(self, attacker: Attacker) -> None:
        """CVE-2022-0492: no cgroup v1 anywhere, and none can be mounted."""
        assert attacker.shell("grep -c ' - cgroup ' /proc/self/mountinfo; find /sys -name release_agent")[1] == "0\n"
        script = "mkdir /tmp/c && mount -t cgroup -o rdma cgroup /tmp/c; echo $?"
        assert attacker.shell(script)[1].splitlines()[-1] != "0"

    def test_the_cgroup_view_ends_at_the_job(self, attacker: Attacker) -> None:
        assert attacker.shell("grep ^0 /proc/self/cgroup; ls -d /sys/fs/cgroup/jobs")[1].splitlines()[0] == "0::/"
        job, _ = attacker.shell("mount -o remount,rw /sys/fs/cgroup || mkdir /sys/fs/cgroup/x")
        assert job.exit_code != 0

    def test_no_device_can_be_made(self, attacker: Attacker) -> None:
        script = "mknod /tmp/d b 254 0; mknod /dev/d c 1 11; ls /tmp/d /dev/d"
        assert attacker.shell(script)[0].exit_code != 0

    @pytest.mark.parametrize(
        "command", ["mount --bind / /tmp", "umount -l /proc/sys", "unshare -Ur true", "chroot / true"]
    )
    def test_no_mounts_and_no_namespaces(self, attacker: Attacker, command: str) -> None:
        assert attacker.shell(command)[0].exit_code != 0


class TestServices:
    def test_abstract_sockets_of_the_host(self, attacker: Attacker) -> None:
        """CVE-2020-15257"""
        name = f"worker-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{name}")
            listener.listen()
            _, text = attacker.run(str(attacker.probe), "connect", "abstract", name)
        assert text == f"E{errno.ECONNREFUSED}\n"

    def test_loopback_servers_of_the_host(self, attacker: Attacker) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            _, text = attacker.run(
                "perl", "-MIO::Socket", "-e", f"print IO::Socket::INET->new('127.0.0.1:{port}')||'no'"
            )
        assert text == "no"

    @pytest.mark.parametrize(
        "path",
        [
            "/run/dbus/system_bus_socket",
            "/run/systemd/private",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/run/crio/crio.sock",
            "/run/libvirt/libvirt-sock",
            "/run/user/0/bus",
            "/run/snapd.socket",
            "/run/workerd/workerd.sock",
            "/var/lib/lxd/unix.socket",
            "/var/lib/incus/unix.socket",
            "/dev/log",
            "/tmp/.X11-unix/X0",
        ],
    )
    def test_sockets_of_the_hosts_services(self, attacker: Attacker, path: str) -> None:
        _, text = attacker.run(str(attacker.probe), "connect", "path", path)
        assert text == f"E{errno.ENOENT}\n"

    def test_systemd_run(self, attacker: Attacker) -> None:
        if shutil.which("systemd-run") is None:
            pytest.skip("systemd-run is not installed")
        for how in ("--system", "--user", "--scope"):
            assert attacker.shell(f"systemd-run {how} true")[0].exit_code != 0


class TestPrivileges:
    def test_no_capability_in_any_set_but_roots_list(self, attacker: Attacker) -> None:
        """CVE-2022-24769: nothing inheritable, nothing ambient."""
        _, text = attacker.shell("grep Cap /proc/self/status")
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines()}
        # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE
        wanted = 0 if attacker.uid else 0b100_1111_1011
        assert sets == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}

    def test_set_user_id_programs_give_nothing(self, daemon: Daemon, place: Path) -> None:
        user = Attacker(daemon, USER, place)
        own = user.own_directory()
        program = own / "suid"
        shutil.copy(user.probe, program)
        program.chmod(0o6755)  # root's
        for spec in ({}, {"cwd": str(own)}, {"mounts": (bound(own),)}):
            _, text = user.run(str(program), "caps", **spec)
            assert text.splitlines()[-1] == f"uid {USER}"

    def test_file_capabilities_give_nothing(self, daemon: Daemon, place: Path) -> None:
        user = Attacker(daemon, USER, place)
        own = user.own_directory()
        program = own / "capable"
        shutil.copy(user.probe, program)
        everything = b"\1\0\0\2" + b"\xff" * 4 + b"\0" * 4 + b"\xff\1\0\0" + b"\0" * 4  # vfs_cap_data, version 2
        os.setxattr(program, "security.capability", everything)
        for spec in ({}, {"cwd": str(own)}):
            _, text = user.run(str(program), "caps", **spec)
            assert [line.split()[1].strip("0") for line in text.splitlines()[:2]] == ["", ""], text

    def test_nothing_of_the_daemons_scheduling_is_inherited(self, place: Path) -> None:
        daemon = Daemon()
        try:
            command = daemon.command
            wrapped = ["nice", "-n", "5", "ionice", "-c", "3", "taskset", "-c", "0", "setarch", "-R"]
            daemon.command = lambda: [*wrapped, *command()]  # type: ignore[method-assign]
            daemon.start()
            for uid in (USER, 0):
                attacker = Attacker(daemon, uid, place)
                _, text = attacker.shell(
                    "nice; ionice -p $$; cat /proc/self/personality /proc/self/timerslack_ns; nproc; umask; ulimit -c"
                )
                cpus = str(os.cpu_count())
                assert text.split() == ["0", "none:", "prio", "0", "00000000", "50000", cpus, "0022", "0"]
        finally:
            daemon.close()


def bound(directory: Path) -> Mount:
    return Mount(MountKind.BIND, str(directory), source=str(directory))


def test_keyrings_are_out_of_reach(attacker: Attacker) -> None:
    _, text = attacker.run(str(attacker.probe), "call", "250", "0", "-3", "0")  # KEYCTL_GET_KEYRING_ID, session
    assert text == f"E{errno.EPERM}\n"
