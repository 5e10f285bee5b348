"""After hundreds of jobs the daemon holds what it held before; `make leaks` is the long run."""

from __future__ import annotations

import pytest

from tests.host import leaks
from tests.host.daemon import Daemon

JOBS = 320


@pytest.mark.timeout(240)
def test_descriptors_mounts_cgroups_links_zombies_and_memory_are_what_they_were(own_daemon: Daemon) -> None:
    leaks.come_and_go(own_daemon, 80)
    before = leaks.held(own_daemon)
    leaks.come_and_go(own_daemon, JOBS)
    after, more = leaks.settled(own_daemon, before)
    assert not more, (more, before, after)
    assert after.threads <= before.threads + 8
