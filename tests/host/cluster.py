"""A cluster for tests: Dask's own scheduler and workers, each worker with a workerd of its own.

All are processes on loopback, with ports that the kernel chose, and are ended by pid.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.host.daemon import ROOT, Daemon

SECONDS = 40.0
QUIET = {
    "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "False",
    "DASK_WORKERCTL__GRACE": "3s",
    "PYTHONWARNINGS": "ignore",
}


class Process:
    """One of Dask's programs; its log is a file."""

    def __init__(self, base: Path, name: str, words: Sequence[str], *, env: dict[str, str], **popen: Any) -> None:
        self.log = base / f"{name}.log"
        command = [*popen.pop("enter", []), sys.executable, "-m", "dask", *words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **popen
            )

    def wait_log(self, text: str) -> str:
        """The first line that has it."""
        deadline = time.monotonic() + SECONDS
        while True:
            for line in self.log.read_text(errors="replace").splitlines():
                if text in line:
                    return line
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Cluster:
    """`machines` by name, each with its configuration of workerd."""

    def __init__(self, machines: dict[str, str], *, env: dict[str, str] | None = None, scheme: str = "tcp") -> None:
        self.base = Path(tempfile.mkdtemp(prefix="worker-cluster-"))
        self.base.chmod(0o755)
        self.env = {**os.environ, **QUIET, **(env or {})}
        self.scheme = scheme
        self.daemons = {name: Daemon(config=config) for name, config in machines.items()}
        self.workers: dict[str, Process] = {}
        self.scheduler: Process | None = None
        self.address = ""
        self.host = "127.0.0.1"
        self.enter: list[str] = []
        """what the scheduler and the clients are started with"""
        self.begun: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for daemon in self.daemons.values():
            daemon.start()
        self.start_scheduler()
        for name in self.daemons:
            self.start_worker(name)
        for name in self.daemons:
            self.workers[name].wait_log("Registered to")

    def start_scheduler(self) -> None:
        """At the address that it had, if it had one."""
        port = self.address.rpartition(":")[2] or "0"
        words = ["scheduler", "--host", f"{self.scheme}://{self.host}", "--port", port, "--no-dashboard"]
        self.scheduler = Process(self.base, f"scheduler{time.monotonic_ns()}", words, env=self.env, enter=self.enter)
        self.address = self.scheduler.wait_log("Scheduler at:").split()[-1]

    def start_worker(self, name: str, *options: str, **popen: Any) -> Process:
        daemon = self.daemons[name]
        own = ["--name", name, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--local-directory", str(self.base)]
        preload = ["--preload", "workerctl.dask", "--workerd-socket", str(daemon.socket)]
        words = ["worker", self.address, *own, *preload, *options]
        log = f"{name}-{time.monotonic_ns()}"
        self.workers[name] = Process(self.base, log, words, env=self.env, **popen)
        return self.workers[name]

    def command(self, *words: str) -> list[str]:
        return [*self.enter, sys.executable, "-m", "workerctl", "--cluster", self.address, *words]

    def ctl(self, *words: str, **run: Any) -> subprocess.CompletedProcess[bytes]:
        options = {"cwd": ROOT, "env": self.env, "capture_output": True, "timeout": 60, "stdin": subprocess.DEVNULL}
        return subprocess.run(self.command(*words), check=False, **{**options, **run})

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.command(*words), cwd=ROOT, env=self.env, stdout=-1, stderr=-1, stdin=subprocess.DEVNULL
        )
        self.begun.append(process)
        return process

    def close(self) -> None:
        for begun in self.begun:
            begun.kill()
            begun.communicate()
        for process in (*self.workers.values(), self.scheduler):
            if process is not None and process.process.poll() is None:
                process.kill()
        for daemon in self.daemons.values():
            daemon.close()
        shutil.rmtree(self.base, ignore_errors=True)


@contextlib.contextmanager
def cluster(machines: dict[str, str], **options: Any) -> Iterator[Cluster]:
    made = Cluster(machines, **options)
    try:
        made.start()
        yield made
    finally:
        made.close()


def certificates(base: Path) -> dict[str, str]:
    """Dask's configuration of TLS, with an authority and a certificate made for it."""
    base.mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    files = ["-keyout", str(base / "key.pem"), "-out", str(base / "cert.pem"), "-subj", "/CN=cluster"]
    subprocess.run([*new, *files], check=True, capture_output=True)
    config = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    config["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(base / "cert.pem")
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        config[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(base / "cert.pem")
        config[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(base / "key.pem")
    return config


def wait_until(what: Callable[[], object], *, seconds: float = SECONDS) -> Any:
    """What it gives once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], SECONDS)
    assert ready, "nothing came"
    return process.stdout.readline()
