"""A job's figures are read from the kernel at most once a millisecond."""

from __future__ import annotations

import pytest

from workerd.job import Usage
from workerd.recentusage import LASTS_NS, RecentUsage


class Kernel:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 5_000_000_000
        self.asked = 0

    def usage(self) -> Usage:
        self.asked += 1
        return Usage(cpu_usec=self.asked)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def recent(kernel: Kernel) -> RecentUsage:
    return RecentUsage(lambda: kernel.now)


def test_it_is_read_once_a_millisecond(recent: RecentUsage, kernel: Kernel) -> None:
    assert [recent.of("a", kernel.usage).cpu_usec for _ in range(3)] == [1, 1, 1]
    kernel.now += LASTS_NS - 1
    assert recent.of("a", kernel.usage).cpu_usec == 1
    kernel.now += 1
    assert recent.of("a", kernel.usage).cpu_usec == 2


def test_each_job_has_its_own(recent: RecentUsage, kernel: Kernel) -> None:
    assert recent.of("a", kernel.usage) != recent.of("b", kernel.usage)


def test_a_forgotten_one_is_read_again(recent: RecentUsage, kernel: Kernel) -> None:
    recent.of("a", kernel.usage)
    recent.forget("a")
    recent.forget("never there")
    assert recent.of("a", kernel.usage).cpu_usec == 2


def test_what_fails_is_not_kept(recent: RecentUsage, kernel: Kernel) -> None:
    def gone() -> Usage:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        recent.of("a", gone)
    assert recent.of("a", kernel.usage).cpu_usec == 1


def test_few_are_kept(recent: RecentUsage, kernel: Kernel) -> None:
    for number in range(10_000):
        recent.of(str(number), kernel.usage)
    assert len(recent._read) <= 256
