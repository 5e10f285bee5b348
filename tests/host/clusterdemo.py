"""`make demo-cluster`: a cluster of two machines, shown on one.

    alpha                        hub                          beta
    workerd (4G), Dask worker    scheduler, workerctl         workerd (2G), Dask worker
    198.51.100.2 ─────────────── 198.51.100.1
                                 198.51.100.5 ─────────────── 198.51.100.6

Each is a network namespace made for it, the way between them is TLS, and the machine's own
interfaces are not touched. Needs root and a cgroup2 mount.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.host.cluster import Cluster, Process, certificates, wait_until
from tests.host.daemon import Daemon
from tests.host.netns import Namespace

ADDRESSES = {"alpha": ("198.51.100.1", "198.51.100.2"), "beta": ("198.51.100.5", "198.51.100.6")}
"""(the hub's, the machine's own)"""
MEMORY = {"alpha": "4G", "beta": "2G"}
SOON = {"DASK_WORKERCTL__GRACE": "2s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s"}
"""Dask misses a silent machine after 5 minutes; nobody wants to watch that"""


class FarDaemon(Daemon):
    """workerd in a namespace."""

    def __init__(self, namespace: Namespace, config: str) -> None:
        super().__init__(config=config)
        self.namespace = namespace

    def command(self) -> list[str]:
        return [*self.namespace.enter, *super().command()]


class NetCluster(Cluster):
    def __init__(self) -> None:
        super().__init__({}, scheme="tls", env=SOON)
        self.env |= certificates(self.base / "tls")
        self.hub = Namespace()
        self.namespaces = {name: Namespace() for name in ADDRESSES}
        self.host, self.enter = "0.0.0.0", self.hub.enter  # noqa: S104 - of the hub, which has nothing else
        self.hub.run("ip", "link", "set", "lo", "up")
        for name, namespace in self.namespaces.items():
            self._join(name, namespace)
            config = f'[machine]\nmemory = "{MEMORY[name]}"\n'
            self.daemons[name] = FarDaemon(namespace, config)

    def _join(self, name: str, namespace: Namespace) -> None:
        hub, own = ADDRESSES[name]
        peer = ["peer", "name", "up0", "netns", str(namespace.keeper.pid)]
        self.hub.run("ip", "link", "add", name, "type", "veth", *peer)
        for place, address, link in ((self.hub, hub, name), (namespace, own, "up0")):
            place.run("ip", "address", "add", f"{address}/30", "dev", link)
            place.run("ip", "link", "set", link, "up")
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "route", "add", "default", "via", hub)

    def start_scheduler(self) -> None:
        super().start_scheduler()
        self.address = f"tls://{ADDRESSES['alpha'][0]}:{self.address.rpartition(':')[2]}"

    def start_worker(self, name: str, *options: str, **popen: Any) -> Process:
        where = ["--host", f"tls://{ADDRESSES[name][1]}"]
        return super().start_worker(name, *where, *options, enter=self.namespaces[name].enter, **popen)

    def cut_off(self, name: str) -> None:
        self.hub.run("ip", "link", "set", name, "down")

    def close(self) -> None:
        super().close()
        for namespace in (self.hub, *self.namespaces.values()):
            namespace.close()


@contextmanager
def net_cluster() -> Iterator[NetCluster]:
    made = NetCluster()
    try:
        made.start()
        yield made
    finally:
        made.close()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def show(made: NetCluster, *words: str) -> str:
    print(f"$ workerctl {shlex.join(words)}", flush=True)
    ran = made.ctl(*words)
    print((ran.stdout + ran.stderr).decode(errors="replace"), end="", flush=True)
    if ran.returncode:
        print(f"(exit code {ran.returncode})", flush=True)
    return ran.stdout.decode().strip()


def main() -> None:
    say("Two machines: alpha with 4G, beta with 2G; a scheduler; TLS between them. Starting ...")
    with net_cluster() as made:
        print(f"$ export WORKER_CLUSTER={made.address}")
        say("A job of 3G has room on alpha alone, so Dask places it there")
        big = show(made, "run", "--name", "big", "--need", "MEMORY=3G", "--", "sh", "-c", "echo working; sleep 600")
        say("A second one waits; smaller ones go where there is room")
        waiting = show(made, "run", "--need", "MEMORY=3G", "--", "echo", "my turn")
        show(made, "run", "--need", "MEMORY=1G", "--retries", "1", "--", "sh", "-c", "sleep 2; echo done")
        show(made, "run", "-f", "--", "sh", "-c", "echo output comes from the machine that has it; exit 3")
        show(made, "ps", "-a")
        say("Room is made, and it gets its turn")
        show(made, "stop", "big")
        show(made, "wait", waiting)
        show(made, "out", waiting)
        say("alpha is cut off while two jobs run there: one may be run again, one may not")
        once = show(made, "run", "--need", "MEMORY=3G", "--", "sleep", "600")
        again = show(
            made, "run", "--need", "MEMORY=0.5G", "--retries", "1", "--", "sh", "-c", "sleep 8; echo ran to its end"
        )
        made.cut_off("alpha")
        wait_until(lambda: b"lost" in made.ctl("status", once).stdout, seconds=60)
        show(made, "status", once)
        show(made, "wait", again)
        show(made, "ps", "-a")
        assert big.startswith("alpha/"), big


if __name__ == "__main__":
    main()
