"""Jobs that attack: run as an ordinary user or as root, with a static C program at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.host.daemon import ENV, Daemon, as_user
from workerd import protocol
from workerd.job import Job, JobSpec

USER = 4321
OTHER = 4322
HERE = Path(__file__).resolve().parent


def compile_probe(directory: Path) -> None:
    """probe.c as a static program that every user may run."""
    compiler = shutil.which("musl-gcc") or "cc"
    probe = directory / "probe"
    subprocess.run([compiler, "-std=gnu11", "-O1", "-static", "-o", probe, HERE / "probe.c"], check=True)
    probe.chmod(0o755)


class Attacker:
    """A caller of the daemon: uid 0 or another."""

    def __init__(self, daemon: Daemon, uid: int, place: Path) -> None:
        self.daemon = daemon
        self.uid = uid
        self.place = place
        self.probe = place / "probe"

    def start(self, *argv: str, env: dict[str, str] | None = None, **spec: Any) -> str:
        """A job of this caller's; its id. Raises what the daemon answers."""

        def call() -> str:
            with self.daemon.client() as client:
                params = protocol.RunParams(spec=JobSpec(argv=argv, **spec), env=env or ENV)
                return str(client.call("job.run", params).id)

        return str(as_user(self.uid, call)) if self.uid else call()

    def run(self, *argv: str, **spec: Any) -> tuple[Job, str]:
        """To its end: (the finished job, its output)."""
        job = self.daemon.wait(self.start(*argv, **spec))
        return job, self.daemon.output(job.id).decode(errors="replace")

    def shell(self, script: str, **spec: Any) -> tuple[Job, str]:
        """A script to its end; `$P` in it is the probe."""
        return self.run("sh", "-c", script, env={**ENV, "P": str(self.probe)}, **spec)

    def own_directory(self, name: str = "own") -> Path:
        """A new directory that this caller may write, where jobs see it."""
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.place))
        os.chown(directory, self.uid, self.uid)
        return directory
