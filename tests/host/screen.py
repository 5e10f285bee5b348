"""A person at a terminal, for tests: tmux types and reads the screen."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.host.daemon import ROOT, Daemon

PATIENCE = 30.0
_numbers = itertools.count(1)


class Screen:
    """A tmux server of its own with one window; in it a shell whose `w` is workerctl."""

    def __init__(self, daemon: Daemon, columns: int = 80, rows: int = 24) -> None:
        self.name = f"worker-test-{os.getpid()}-{next(_numbers)}"
        env = {"WORKERD_SOCKET": str(daemon.socket), "PS1": "host> ", "TERM": "screen", "LANG": "C.UTF-8"}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        shell = f"cd {ROOT} && exec env {words} bash --norc --noprofile"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), shell)
        self.type(f'w() {{ {sys.executable} -m workerctl "$@"; }}; clear\n')
        self.wait(r"^host>$")

    def tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-L", self.name, *words], capture_output=True, check=True, timeout=30)
        return done.stdout.decode()

    def type(self, text: str) -> None:
        """As typed; \\n is Enter."""
        for part in re.split(r"(\n)", text):
            if part:
                self.tmux("send-keys", *(["Enter"] if part == "\n" else ["-l", part]))

    def keys(self, *names: str) -> None:
        """C-c, Escape …"""
        self.tmux("send-keys", *names)

    def shown(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Until a line of the screen matches; the screen."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, shown := self.shown(), re.MULTILINE):
            assert time.monotonic() < deadline, f"no {pattern!r} on the screen:\n{shown}"
            time.sleep(0.05)
        return shown

    def resize(self, columns: int, rows: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def modes(self) -> str:
        """What tmux knows of the pane: alternate screen, cursor, mouse, keypad."""
        names = "alternate_on cursor_flag mouse_any_flag keypad_cursor_flag".split()
        return self.tmux("display-message", "-p", " ".join(f"{name}=#{{{name}}}" for name in names)).strip()

    def sane(self) -> None:
        """The terminal is as a shell wants it: cooked, echoing, on its first screen."""
        self.type("clear; stty -a | tr ';' '\\n' | grep -ow -e '-*icanon' -e '-*echo' -e '-*isig' -e '-*opost'\n")
        screen = self.wait(r"^isig(?s:.*)^host>$|^opost(?s:.*)^host>$")
        assert not re.search(r"^-", screen, re.MULTILINE), screen
        assert self.modes() == "alternate_on=0 cursor_flag=1 mouse_any_flag=0 keypad_cursor_flag=0"

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.tmux("kill-server")


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in ("tmux", *programs) if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextlib.contextmanager
def screen_of(daemon: Daemon, columns: int = 80, rows: int = 24) -> Iterator[Screen]:
    made = Screen(daemon, columns, rows)
    try:
        yield made
    finally:
        made.close()
