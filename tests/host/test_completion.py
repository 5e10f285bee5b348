"""The Tab key in the real shells, at a real terminal, with a real daemon's jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import Daemon, running
from tests.host.screen import Screen, needs, screen_of

pytestmark = [pytest.mark.root, needs()]
BIN = Path(sys.executable).parent
SETUP = {
    "bash": [
        "exec bash --norc --noprofile",
        "bind 'set show-all-if-ambiguous on'",
        "source <(workerctl completion bash)",
    ],
    "zsh": [
        "exec zsh -f",
        "autoload -Uz compinit && compinit -u -D; unsetopt automenu",
        "source <(workerctl completion zsh)",
    ],
    "fish": [
        "exec fish --no-config",
        "set -g fish_autosuggestion_enabled 0; function fish_prompt; echo 'host> '; end",
        "workerctl completion fish | source",
    ],
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as made:
        made.run("sleep", "1000", name="sleeper", labels={"team": "blue"})
        made.wait(made.run("true", name="gone"))
        yield made


@pytest.fixture(scope="module", params=sorted(SETUP))
def shell(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Screen]:
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"not installed: {name}")
    with screen_of(daemon, columns=100) as screen:
        screen.type(f"cd {daemon.base}; mkdir -p 'a tree/inner'; touch 'a tree/file'; export PATH={BIN}:$PATH\n")
        for line in SETUP[name]:
            screen.type(f"{line}\n")
        screen.type("clear\n")
        screen.wait(r"\A\s*host>\s*\Z")
        yield screen


def empty(shell: Screen) -> None:
    """Nothing typed, nothing shown. By keys that the line editor takes in their turn: a
    signal would come too early."""
    shell.keys("C-e", "C-u", "C-l")
    shell.wait(r"\A\s*host>\s*\Z")


def tab(shell: Screen, line: str, *expected: str) -> str:
    """Types the line and Tab; the screen, once it shows all that is expected."""
    empty(shell)
    shell.type(line)
    shell.keys("Tab")
    for pattern in expected:
        shown = shell.wait(pattern)
    return shown


class TestTab:
    def test_a_verb(self, shell: Screen) -> None:
        tab(shell, "workerctl comp", r"> workerctl completion$")

    def test_verbs_to_choose_from(self, shell: Screen) -> None:
        tab(shell, "workerctl re", r"\breplay\b", r"\bresume\b", r"\brerun\b", r"\brename\b")

    def test_an_option(self, shell: Screen) -> None:
        tab(shell, "workerctl run --read", r"> workerctl run --read-only")

    @pytest.mark.parametrize("lead", ["--net ", "--net="])
    def test_a_value_of_a_few(self, shell: Screen, lead: str) -> None:
        tab(shell, f"workerctl run {lead}b", rf"> workerctl run {lead}bridge")

    def test_a_condition_is_two_steps(self, shell: Screen) -> None:
        tab(shell, "workerctl ps --filter sta", r"> workerctl ps --filter state=")
        tab(shell, "workerctl ps --filter state=run", r"> workerctl ps --filter state=running")

    def test_a_running_job_by_name(self, shell: Screen) -> None:
        shown = tab(shell, "workerctl stop ", r"> workerctl stop sleeper")
        assert "gone" not in shown

    def test_any_job_by_the_beginning_of_its_id(self, shell: Screen, daemon: Daemon) -> None:
        with daemon.client() as client:
            job = client.status("gone")
        tab(shell, f"workerctl out {job.id[:6]}", rf"> workerctl out {job.id}")

    def test_what_to_wait_for_after_a_colon(self, shell: Screen) -> None:
        tab(shell, "workerctl run --after sleeper:fa", r"> workerctl run --after sleeper:failed")

    def test_a_label(self, shell: Screen) -> None:
        tab(shell, "workerctl ps -l te", r"> workerctl ps -l team=blue")

    @pytest.mark.parametrize("lead", ["--rw ", "--rw=", "--bind /srv:"])
    def test_a_path_with_a_space_in_it(self, shell: Screen, lead: str) -> None:
        tab(shell, rf"workerctl run {lead}a\ tree/in", rf"> workerctl run {lead}(a\\ tree|'a tree)/inner")

    def test_a_directory_alone_where_one_is_taken(self, shell: Screen) -> None:
        shown = tab(shell, r"workerctl run -w a\ tree/", r"> workerctl run -w (a\\ tree|'a tree)/inner")
        assert "file" not in shown

    def test_the_command(self, shell: Screen) -> None:
        tab(shell, "workerctl run --mem 1G -- mkfif", r"> workerctl run --mem 1G -- mkfifo")

    def test_the_commands_own_words(self, shell: Screen) -> None:
        tab(shell, r"workerctl exec sleeper cat a\ tree/fi", r"> workerctl exec sleeper cat (a\\ tree|'a tree)/file")

    def test_the_daemon_that_the_line_names(self, shell: Screen, daemon: Daemon) -> None:
        empty(shell)
        shell.type("export WORKERD_SOCKET=/nowhere\n")
        try:
            tab(shell, f"workerctl --socket {daemon.socket} stop sl", r"stop sleeper")
            tab(shell, "workerctl stop sl", r"> workerctl stop sl")
            shell.type("-")  # comes once the Tab is done with
            shell.wait(r"> workerctl stop sl-$")
        finally:
            empty(shell)
            shell.type(f"export WORKERD_SOCKET={daemon.socket}\n")


def asked(socket: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "WORKERD_SOCKET": str(socket)}
    command = [sys.executable, "-m", "workerctl", "__complete", *words]
    return subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)


class TestPatience:
    def test_a_daemon_that_does_not_answer_is_not_waited_for(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            done = asked(daemon.socket, "stop", "")  # would be ended by its time limit
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"words\t\n", b"")

    def test_no_daemon_is_no_error(self, tmp_path: Path) -> None:
        done = asked(tmp_path / "none", "stop", "")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"words\t\n", b"")
