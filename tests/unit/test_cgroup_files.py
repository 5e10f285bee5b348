"""The formats of cgroup v2 files, on directories that hold such files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from workerd.cgroupfiles import CgroupNode, HeldAccounts, parse_nested, parse_pressure, read_account


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "job-x"


@pytest.fixture
def node(directory: Path) -> Iterator[CgroupNode]:
    directory.mkdir()
    with CgroupNode(directory) as node:
        yield node


class TestSettings:
    def test_max_is_none_both_ways(self, node: CgroupNode, directory: Path) -> None:
        (directory / "memory.max").write_text("max\n")
        assert node.memory.max is None
        node.memory.max = 4096
        assert node.memory.max == 4096
        (directory / "memory.max").write_text("")
        node.memory.max = None
        assert (directory / "memory.max").read_text() == "max"

    @pytest.mark.parametrize(("text", "value"), [("max 100000", (None, 100_000)), ("1000 20000", (1000, 20_000))])
    def test_cpu_max_is_quota_and_period(
        self, node: CgroupNode, directory: Path, text: str, value: tuple[int | None, int]
    ) -> None:
        (directory / "cpu.max").write_text(f"{text}\n")
        assert node.cpu.max == value
        (directory / "cpu.max").write_text("")
        node.cpu.max = value
        assert (directory / "cpu.max").read_text() == text

    @pytest.mark.parametrize("text", ["50\n", "default 50\n", "default 50\n8:0 200\n"])
    def test_weight_is_the_default_one(self, node: CgroupNode, directory: Path, text: str) -> None:
        (directory / "io.weight").write_text(text)
        assert node.io.weight == 50

    def test_io_max_is_written_one_device_at_a_time(self, node: CgroupNode, directory: Path) -> None:
        (directory / "io.max").write_text("")
        assert node.io.max == {}
        node.io.max = {"8:0": {"rbps": "1048576", "wiops": "max"}}
        assert (directory / "io.max").read_text() == "8:0 rbps=1048576 wiops=max"
        assert node.io.max == {"8:0": {"rbps": "1048576", "wiops": "max"}}

    def test_subtree_control_switches_on_what_is_assigned(self, node: CgroupNode, directory: Path) -> None:
        (directory / "cgroup.subtree_control").write_text("")
        assert node.core.subtree_control == frozenset()
        node.core.subtree_control = frozenset({"memory", "cpu"})
        assert (directory / "cgroup.subtree_control").read_text() == "+cpu +memory"

    def test_cpus_offered_are_the_parents(self, node: CgroupNode, directory: Path) -> None:
        (directory.parent / "cpuset.cpus.effective").write_text("0-3\n")
        assert node.cpuset.offered == "0-3"

    def test_an_absent_file_is_an_error_that_names_it(self, node: CgroupNode, directory: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            node.memory.max = 1
        assert caught.value.filename == str(directory / "memory.max")
        assert str(directory / "memory.max") in str(caught.value)

    def test_a_refused_write_is_an_error_that_names_the_file(self, node: CgroupNode, directory: Path) -> None:
        os.symlink("/dev/full", directory / "cpu.weight")
        with pytest.raises(OSError) as caught:
            node.cpu.weight = 3
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(directory / "cpu.weight")

    def test_what_is_only_to_be_read_cannot_be_written(self, node: CgroupNode) -> None:
        with pytest.raises(RuntimeError):
            node.core.controllers = frozenset({"cpu"})


class TestAccounts:
    def test_absent_is_none(self, node: CgroupNode) -> None:
        assert node.memory.current is None
        assert node.cpu.stat is None

    def test_other_errors_are_raised(self, node: CgroupNode, directory: Path) -> None:
        (directory / "memory.current").mkdir()
        with pytest.raises(IsADirectoryError):
            _ = node.memory.current

    def test_flat_keyed(self, node: CgroupNode, directory: Path) -> None:
        (directory / "memory.events").write_text("low 0\nmax 12\noom 3\noom_kill 2\n")
        assert node.memory.events == {"low": 0, "max": 12, "oom": 3, "oom_kill": 2}

    def test_an_empty_file_is_an_empty_dict(self, node: CgroupNode, directory: Path) -> None:
        (directory / "cpu.stat").write_text("")
        assert node.cpu.stat == {}

    def test_pressure_is_the_total_of_some(self) -> None:
        some, full = "some avg10=1.00 avg60=0.50 avg300=0.00 total=12345", "full avg10=0.00 avg60=0.00 total=1"
        assert parse_pressure(f"{some}\n{full}\n") == 12345

    def test_more_than_one_read_gives(self, node: CgroupNode, directory: Path) -> None:
        pids = list(range(1, 40_000))
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        assert node.core.procs == pids


class TestFigures:
    """The files of a job's usage, opened for each reading or held."""

    def test_absent_is_none(self, node: CgroupNode) -> None:
        held = HeldAccounts(node)
        assert read_account(node.fd, b"memory.peak") is None
        assert held.read(b"memory.peak") is None
        assert len(held) == 0

    def test_a_held_file_says_what_there_is_now(self, node: CgroupNode, directory: Path) -> None:
        held = HeldAccounts(node)
        for text in ("10\n", "7\n"):
            (directory / "pids.current").write_text(text)
            assert held.read(b"pids.current") == read_account(node.fd, b"pids.current") == text
        assert len(held) == 1
        held.close()
        held.close()

    def test_a_long_one_is_read_whole(self, node: CgroupNode, directory: Path) -> None:
        text = "".join(f"8:{number} rbytes=1\n" for number in range(3000))
        (directory / "io.stat").write_text(text)
        held = HeldAccounts(node)
        assert held.read(b"io.stat") == read_account(node.fd, b"io.stat") == text.strip()
        held.close()


class TestNestedText:
    def test_devices_and_their_figures(self) -> None:
        text = "8:0 rbytes=1 wbytes=2 cost.vrate=100.00\n254:16 rbytes=3\n"
        assert parse_nested(text) == {
            "8:0": {"rbytes": "1", "wbytes": "2", "cost.vrate": "100.00"},
            "254:16": {"rbytes": "3"},
        }

    def test_a_device_without_figures_and_newline(self) -> None:
        assert parse_nested("8:0 8:16 rbytes=3\n") == {"8:0": {}, "8:16": {"rbytes": "3"}}


class TestNode:
    def test_a_closed_node_reaches_nothing(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "cpu.weight").write_text("100")
        node = CgroupNode(directory)
        node.close()
        node.close()
        assert node.fd == -1
        with pytest.raises(OSError) as caught:
            _ = node.cpu.weight
        assert caught.value.errno == errno.EBADF

    def test_its_fd_is_close_on_exec(self, node: CgroupNode) -> None:
        assert not os.get_inheritable(node.fd)

    def test_a_directory_of_the_same_name_is_not_reached(self, node: CgroupNode, directory: Path) -> None:
        directory.rename(directory.with_name("old"))
        directory.mkdir()
        (directory / "memory.current").write_text("7")
        assert node.memory.current is None
