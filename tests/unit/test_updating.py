"""Other limits for a running job: merged, written as a whole, put back as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from workerd.cgroupfiles import CgroupNode
from workerd.job import IoLimit, Limits
from workerd.limitsnapshot import Snapshot, lift
from workerd.updating import merged

FILES = {
    "memory.max": "1048576\n",
    "memory.swap.max": "0\n",
    "cpu.max": "50000 100000\n",
    "cpu.weight": "100\n",
    "cpuset.cpus": "\n",
    "pids.max": "11\n",
    "io.weight": "default 200\n8:0 50\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def write(path: Path, name: str, text: str) -> None:
    (path / name).write_text(text)


class TestSnapshot:
    def test_what_was_changed_is_put_back_and_the_rest_is_not_touched(self, directory: Path) -> None:
        with CgroupNode(directory) as node:
            before = Snapshot(node)
            write(directory, "memory.max", "max")
            write(directory, "cpu.max", "max 100000")
            write(directory, "io.weight", "default 7\n")
            untouched = (directory / "pids.max").stat().st_mtime_ns
            before.restore()
        assert (directory / "memory.max").read_text().split()[0].startswith("1048576")
        assert (directory / "cpu.max").read_text().startswith("50000 100000")
        assert (directory / "io.weight").read_text().startswith("200")
        assert (directory / "pids.max").stat().st_mtime_ns == untouched

    def test_files_that_the_kernel_lacks_are_no_matter(self, tmp_path: Path) -> None:
        with CgroupNode(tmp_path) as node:
            Snapshot(node).restore()
            lift(node, ["memory", "cpus", "io", "io_weight"])
        assert list(tmp_path.iterdir()) == []

    def test_lifting(self, directory: Path) -> None:
        with CgroupNode(directory) as node:
            lift(node, ["memory", "cpu_weight"])
        assert (directory / "memory.max").read_text().startswith("max")
        assert (directory / "cpu.weight").read_text().startswith("100")


class TestMerged:
    def test_what_is_not_named_stays(self) -> None:
        before = Limits(memory=1, cpus=2, pids=3)
        assert merged(before, Limits(cpus=4), ()) == Limits(memory=1, cpus=4, pids=3)

    def test_what_is_lifted_goes(self) -> None:
        before = Limits(memory=1, cpus=2, io=(IoLimit("8:0", read_bps=1),))
        assert merged(before, Limits(), ("memory", "io")) == Limits(cpus=2)

    def test_a_device_that_both_name_has_the_newer_rates(self) -> None:
        before = Limits(io=(IoLimit("8:0", read_bps=1, write_bps=2), IoLimit("8:16", read_bps=3)))
        after = merged(before, Limits(io=(IoLimit("8:0", read_bps=9),)), ())
        assert after.io == (IoLimit("8:0", read_bps=9, write_bps=2), IoLimit("8:16", read_bps=3))
