"""`doctor`: what worker needs of a machine, looked at one by one.

A module for each part, with `check(host) -> Iterator[Finding]`; none needs workerd to
run, nor root, and what cannot be looked at is a warning that says so. Files and
programs are reached through Host alone, so that a test can be another machine.
"""

from __future__ import annotations

import os
import subprocess

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OK, WARNING, FAILED = "ok", "warning", "failed"
PARTS = ("kernel", "cgroups", "software", "policy", "places", "units", "access", "daemon")
PROGRAM_SECONDS = 20


class Finding:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    __slots__ = ("found", "level", "part", "remedy", "what")

    def __init__(self, what: str, level: str, found: str, remedy: str = "") -> None:
        self.part = ""
        self.what = what
        self.level = level
        self.found = found
        self.remedy = remedy

    def as_json(self) -> dict[str, str | None]:
        return {
            "part": self.part,
            "check": self.what,
            "level": self.level,
            "found": self.found,
            "remedy": self.remedy or None,
        }


class Host:
    """This machine, or the tree at `root` that stands for one."""

    def __init__(self, root: str = "/", *, socket: str | None = None) -> None:
        from workerctl.wire import socket_path

        self.root = root
        self.socket = socket_path(socket)

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def read(self, path: str) -> str | None:
        """What is in a file; None where there is none, or it may not be read."""
        try:
            with open(self.path(path), errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def start(self, unit: str = "workerd") -> str:
        """How to start it here."""
        if self.exists("/run/systemd/system"):
            return f"systemctl start {unit}"
        return "start workerd by hand, as root: workerd --help"

    def run(self, *words: str) -> tuple[int, str] | None:
        """A program's exit code and output, both streams; None where there is none."""
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PROGRAM_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.returncode, done.stdout.decode(errors="replace").strip()


def examine(host: Host, parts: Sequence[str] = PARTS) -> Iterator[Finding]:
    """Every finding, in the order of PARTS. A check that fails itself is a finding too."""
    import sys

    for part in parts:
        name = f"workerctl.doctor.{part}"
        __import__(name)
        try:
            for finding in sys.modules[name].check(host):
                finding.part = part
                yield finding
        except OSError as error:
            broken = Finding(part, WARNING, f"could not be looked at: {error}", "try again as root")
            broken.part = part
            yield broken
