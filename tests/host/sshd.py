"""A real sshd for a test: on an unprivileged port of 127.0.0.1, with keys of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.host.daemon import ENV, ROOT, as_user

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
PATIENCE = 20.0
PRIVATE = Path("/run/sshd")
"""sshd wants it, and systemd makes it where sshd is a service"""


class Sshd:
    """Every account of this machine may come in with the one key; commands find in their
    PATH the directory `bin`, in which `workerctl` is (or not: `installed`)."""

    def __init__(self, *, installed: bool = True) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="worker-sshd-"))
        self.base.chmod(0o755)
        self.port = _free_port()
        self._made = not PRIVATE.exists()
        PRIVATE.mkdir(mode=0o755, exist_ok=True)
        self._keys()
        (self.base / "bin").mkdir()
        if installed:
            self.install(f"PYTHONPATH={ROOT} exec {sys.executable} -m workerctl")
        self._configure()
        self._log = (self.base / "log").open("wb")
        assert SSHD is not None
        command: list[str | Path] = [SSHD, "-D", "-e", "-f", self.base / "sshd_config"]
        self._process = subprocess.Popen(command, stderr=self._log, stdin=subprocess.DEVNULL, env=ENV)
        self._wait()

    def install(self, line: str) -> None:
        """What `workerctl` is over there."""
        program = self.base / "bin" / "workerctl"
        program.write_text(f'#!/bin/sh\n{line} "$@"\n')
        program.chmod(0o755)

    @property
    def ssh(self) -> str:
        """For WORKER_SSH."""
        return f"ssh -F {self.base / 'ssh_config'}"

    def host(self, socket_path: Path | str, user: str = "root") -> str:
        """For -H."""
        return f"ssh://{user}@127.0.0.1:{self.port}{socket_path}"

    def sessions(self) -> list[int]:
        """The pids of sshd's processes that serve somebody."""
        found = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, check=False)
        return [int(word) for word in found.stdout.split()]

    def close(self) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._log.close()
        shutil.rmtree(self.base)
        if self._made:
            with contextlib.suppress(OSError):
                PRIVATE.rmdir()

    def _keys(self) -> None:
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / name], check=True)
        public = (self.base / "host_key.pub").read_text()
        (self.base / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        shutil.copy(self.base / "key.pub", self.base / "authorized_keys")

    def _configure(self) -> None:
        (self.base / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.base}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.base}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nSetEnv PATH={self.base}/bin:/usr/bin:/bin\n"
        )
        (self.base / "ssh_config").write_text(
            f"Host *\n  IdentityFile {self.base}/key\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  UserKnownHostsFile {self.base}/known_hosts\n  StrictHostKeyChecking yes\n"
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                log = (self.base / "log").read_text()
                assert self._process.poll() is None and time.monotonic() < deadline, f"sshd does not serve:\n{log}"
                time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(*, installed: bool = True) -> Iterator[Sshd]:
    made = Sshd(installed=installed)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def account() -> Iterator[tuple[str, int]]:
    """(name, uid) of a user that this machine has only now."""
    name = f"worker-t{os.getpid()}"
    home = Path(tempfile.mkdtemp(prefix="worker-home-", dir="/srv"))
    made = ["useradd", "-M", "-N", "-d", str(home), "-s", "/bin/sh", "-p", "*", name]
    subprocess.run(made, check=True, capture_output=True)
    try:
        uid = int(subprocess.run(["id", "-u", name], check=True, capture_output=True).stdout)
        os.chown(home, uid, -1)
        yield name, uid
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(home)


def python_for(uid: int) -> str | None:
    """An interpreter that this user may run."""
    code = "import sys; sys.exit(sys.version_info < (3, 11))"

    def works(python: str) -> bool:
        try:
            return subprocess.run([python, "-c", code], check=False, cwd="/", env=ENV).returncode == 0
        except OSError:
            return False

    return next((python for python in (sys.executable, "/usr/bin/python3") if as_user(uid, works, python)), None)
