"""Two network namespaces of a test's own: one for the daemon, and "the outside world".

    outside            host (where the daemon runs)         a job
    198.51.100.2 ───── 198.51.100.1, up0   worker0 ──────── eth0

The machine's own interfaces, routes and rules are not touched.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.host.daemon import Daemon

HOST, OUTSIDE = "198.51.100.1", "198.51.100.2"


class Namespace:
    """Kept by a process that sleeps."""

    def __init__(self) -> None:
        self.keeper = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=-1)
        assert self.keeper.stdout is not None
        self.keeper.stdout.readline()

    @property
    def enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]

    def run(self, *argv: str, check: bool = True, **run: Any) -> str:
        """What it prints, both streams."""
        options: dict[str, Any] = {"stdout": -1, "stderr": subprocess.STDOUT, "text": True, "timeout": 60, **run}
        ran = subprocess.run([*self.enter, *argv], check=False, **options)
        assert not check or ran.returncode == 0, f"{argv}: {ran.stdout}"
        return str(ran.stdout)

    def python(self, script: str, *arguments: object) -> str:
        """Run a script there; what it prints, or its traceback."""
        return self.run(sys.executable, "-c", script, *map(str, arguments), check=False).strip()

    @contextlib.contextmanager
    def server(self, script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A script that prints a line when it is ready."""
        command = [*self.enter, sys.executable, "-c", script, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=-1, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()

    def close(self) -> None:
        self.keeper.kill()
        self.keeper.communicate()


class World:
    """The two namespaces, and daemons in the first."""

    def __init__(self) -> None:
        self.host, self.outside = Namespace(), Namespace()
        self.host.run("ip", "link", "set", "lo", "up")
        self.outside.run("ip", "link", "set", "lo", "up")
        peer = ["peer", "name", "out0", "netns", str(self.outside.keeper.pid)]
        self.host.run("ip", "link", "add", "up0", "type", "veth", *peer)
        self.host.run("ip", "address", "add", f"{HOST}/24", "dev", "up0")
        self.host.run("ip", "link", "set", "up0", "up")
        self.outside.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "out0")
        self.outside.run("ip", "link", "set", "out0", "up")
        self.host.run("ip", "route", "add", "default", "via", OUTSIDE)

    def links(self) -> list[str]:
        """Of the host's, beside lo and up0."""
        lines = self.host.run("ip", "-o", "link").splitlines()
        names = [line.split()[1].rstrip(":").partition("@")[0] for line in lines]
        return [name for name in names if name not in ("lo", "up0")]

    def wait_links(self, expected: list[str], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while sorted(self.links()) != sorted(expected):
            assert time.monotonic() < deadline, f"the links are {self.links()}, not {expected}"
            time.sleep(0.05)

    def close(self) -> None:
        self.host.close()
        self.outside.close()


class NetDaemon(Daemon):
    """workerd in the world's host."""

    def __init__(self, world: World, config: str = "") -> None:
        super().__init__(config=config)
        self.world = world

    def command(self) -> list[str]:
        return [*self.world.host.enter, *super().command()]


@contextlib.contextmanager
def net_daemon(config: str = "", world: World | None = None, prelude: str = "") -> Iterator[NetDaemon]:
    own = World() if world is None else None
    daemon = NetDaemon(world or own or World(), config)
    daemon.prelude = prelude
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        if own is not None:
            own.close()
