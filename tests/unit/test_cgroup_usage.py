"""The figures made of io.stat."""

from __future__ import annotations

import pytest

from workerd import blockdev
from workerd.jobcgroup import _io_bytes


@pytest.fixture(autouse=True)
def stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockdev, "is_stacked", lambda number: not number.startswith("8:"))


def stat(**bytes_read: int) -> dict[str, dict[str, str]]:
    """stat(d8_0=5): device 8:0 has read 5 bytes and written twice as many."""
    return {
        device[1:].replace("_", ":"): {"rbytes": str(count), "wbytes": str(2 * count), "rios": "1"}
        for device, count in bytes_read.items()
    }


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (stat(), 0),
        (stat(d8_0=5, d8_16=7), 12),
        (stat(d8_0=5, d8_16=5, d253_0=10, d253_1=10), 10),
        (stat(d8_0=1, d9_127=10), 10),
        (stat(d7_0=3), 3),
    ],
    ids=["nothing yet", "disks add up", "LVM on LUKS on two disks counts once", "RAID 5", "loop"],
)
def test_every_byte_counts_once(given: dict[str, dict[str, str]], read: int) -> None:
    assert _io_bytes(given) == (read, 2 * read)


def test_no_account_is_none() -> None:
    assert _io_bytes(None) == (None, None)


def test_a_device_without_figures() -> None:
    assert _io_bytes({"8:0": {}, "8:16": {"rbytes": "1", "wbytes": "0"}}) == (1, 0)
