"""A daemon with mounts of its own: what is mounted there is no other's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.host.daemon import Daemon, state_of, until
from tests.host.firststage import namespaces, zygote, zygotes


class Host(Daemon):
    """Its mount namespace is its own: what is mounted there is no other's."""

    def __init__(self, propagation: str, top: Path) -> None:
        super().__init__()
        self.propagation = propagation
        self.top = top

    def command(self) -> list[str]:
        script = f'mount --make-r{self.propagation} / && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *super().command()]

    def inside(self, *command: object) -> str:
        """What a command there says."""
        assert self.process is not None
        words = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", *map(str, command)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def directory(self, name: str) -> Path:
        made = self.top / name
        made.mkdir(exist_ok=True)
        return made

    def disk(self, name: str = "disk", content: str = "here\n") -> Path:
        """A tmpfs there, with one file in it."""
        made = self.directory(name)
        self.inside("mount", "-t", "tmpfs", "none", made)
        self.inside("sh", "-c", f"printf '{content}' > {made}/file")
        return made

    def ahead(self) -> int:
        """The first stage, once it is in a copy of these mounts, with nothing left to do."""
        until(lambda: zygotes(self) != [])
        return self._idle("")

    def settled(self) -> int:
        """The same, whatever has changed since: it makes another copy for a job."""
        return self._idle(self.shell("readlink /proc/self/ns/net")[1].strip())

    def _idle(self, taken: str) -> int:
        """`taken`: the network namespace of the newest job."""
        assert self.process is not None
        host = namespaces(self.process.pid)
        until(lambda: namespaces(zygote(self))["net"] not in (host["net"], taken))
        until(lambda: namespaces(zygote(self))["mnt"] != host["mnt"])
        until(lambda: sleeps(zygote(self)))
        return zygote(self)


def sleeps(pid: int) -> bool:
    return state_of(pid) == "S"


class MountedOver(Host):
    """The daemon's root has another mount upon it."""

    def command(self) -> list[str]:
        words = super().command()
        words[words.index("-c") + 1] = 'mount --make-rprivate / && mount --bind / / && exec "$@"'
        return words


@contextlib.contextmanager
def still(pid: int) -> Iterator[int]:
    """It does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)
