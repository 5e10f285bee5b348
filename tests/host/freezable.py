"""A daemon and a disk that can be frozen: what writes to it then waits (state D) until it
is thawed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.host.daemon import Daemon


class FreezableDisk(Daemon):
    """With an ext4 of its own, in a mount namespace of its own. Its jobs write to `disk`,
    or its state is there."""

    def __init__(self, *, with_state: bool = False) -> None:
        super().__init__()
        self.disk = self.base / "disk"
        self.disk.mkdir()
        self.image = self.base / "image"
        with self.image.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.loop = subprocess.run(
            ["losetup", "--find", "--show", self.image], check=True, capture_output=True, text=True
        ).stdout.strip()
        self._place = -1
        if with_state:
            self.state = self.disk / "state"

    def command(self) -> list[str]:
        mount = f'mount {self.loop} {self.disk} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *super().command()]

    def freeze(self) -> None:
        assert self.process is not None
        self._place = os.open(f"/proc/{self.process.pid}/root{self.disk}", os.O_RDONLY | os.O_DIRECTORY)
        self._fsfreeze("--freeze")

    def thaw(self) -> None:
        """Also where the daemon has died meanwhile; nothing where it is not frozen."""
        if self._place >= 0:
            self._fsfreeze("--unfreeze")
            os.close(self._place)
            self._place = -1

    def _fsfreeze(self, how: str) -> None:
        command = ["fsfreeze", how, f"/proc/self/fd/{self._place}"]
        subprocess.run(command, pass_fds=(self._place,), check=True, timeout=60)

    def close(self) -> None:
        try:
            self.thaw()
        finally:
            super().close()
            subprocess.run(["losetup", "--detach", self.loop], check=True)


@contextlib.contextmanager
def freezable(*, with_state: bool = False) -> Iterator[FreezableDisk]:
    """A daemon that runs with one; the test is skipped where none can be had."""
    try:
        made = FreezableDisk(with_state=with_state)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 on a loop device can be had here: {error}")
    try:
        made.start()
        yield made
    finally:
        made.close()
