"""Host tests need root and a cgroup2 mount; controllers they do without."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.attackers import USER, Attacker, compile_probe
from tests.host.daemon import Daemon, running
from tests.host.mounthost import Host
from workerd.cgroup import find_mount


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if os.geteuid() != 0:
        reason = "host tests need root: they make namespaces and cgroups"
    elif find_mount() is None:
        reason = "host tests need a cgroup2 mount"
    if reason is not None:
        for item in items:
            if "tests/host" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One daemon for a module's tests, which leave it running."""
    with running() as made:
        yield made


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon of the test's own, to be killed or reconfigured."""
    with running() as made:
        yield made


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that jobs see (not below /tmp), with the probe in it."""
    directory = Path(tempfile.mkdtemp(prefix="worker-attack-", dir="/srv"))
    directory.chmod(0o755)
    compile_probe(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=[USER, 0], ids=["user", "root"])
def attacker(daemon: Daemon, place: Path, request: pytest.FixtureRequest) -> Attacker:
    """Who attacks: each such test is run as an ordinary user and as root."""
    return Attacker(daemon, request.param, place)


@pytest.fixture(params=["private", "shared"])
def host(request: pytest.FixtureRequest, place: Path) -> Iterator[Host]:
    """A daemon whose mounts are its own, and of that propagation."""
    daemon = Host(request.param, Path(tempfile.mkdtemp(prefix=f"host-{request.param}-", dir=place)))
    daemon.top.chmod(0o755)
    try:
        daemon.start()
        daemon.ahead()
        yield daemon
    finally:
        daemon.close()
