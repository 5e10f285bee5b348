"""`pip install …[client]`, built without a compiler: it talks to a workerd that is installed elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.daemon import Daemon
from tests.packages import NO_COMPILER, build, copy_tree, run


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment with the client alone."""
    base = tmp_path_factory.mktemp("client")
    wheel = build("wheel", copy_tree(base / "tree"), base / "dist", **NO_COMPILER)
    run(sys.executable, "-m", "venv", "--without-pip", base / "venv")
    python = str(base / "venv/bin/python")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-compile", f"{wheel}[client]")
    return base / "venv/bin"


def says(program: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([program, *words], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


class TestClientAlone:
    def test_has_nothing_that_only_the_daemon_needs(self, client: Path) -> None:
        packages = {path.name for path in client.parent.glob("lib/python3*/site-packages/*")}
        assert {"msgspec", "rich", "workerctl"} <= packages
        assert not {"cgroupspy", "pyroute2"} & packages

    def test_runs_a_job_and_draws(self, client: Path, daemon: Daemon) -> None:
        with_socket = ("--socket", str(daemon.socket))
        assert says(client / "workerctl", *with_socket, "run", "--follow", "echo", "hello") == (0, "hello\n")
        code, text = says(client / "workerctl", *with_socket, "ps", "--all")
        assert code == 0 and "echo hello" in text

    def test_its_workerd_says_what_is_missing(self, client: Path) -> None:
        code, text = says(client / "workerd")
        assert code == 1 and text.count("\n") == 1
        assert "cgroupspy" in text and "worker-jobs[daemon]" in text

    def test_its_doctor_knows_that_it_is_alone(self, client: Path, daemon: Daemon) -> None:
        text = says(client / "workerctl", "--socket", str(daemon.socket), "doctor")[1]
        assert "workerctl alone" in text and "worker-init" not in text
