"""What is written for each limit, on directories that hold a cgroup's files.

The kernel's part (rounding, refusing, biting) is shown in the host and system tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from workerd import blockdev, cgrouplimits
from workerd.cgroupfiles import CgroupNode
from workerd.cgrouplimits import CONTROLLERS, Context
from workerd.errors import InvalidParams, MissingController
from workerd.job import IoLimit, Limits

FILES = (
    "memory.max memory.swap.max memory.oom.group cpu.max cpu.weight cpuset.cpus pids.max io.max io.weight io.bfq.weight"
).split()
DISK = blockdev.Target(("8:0",), "ext4")
CAN_BE_ASKED = {
    "memory": Limits(memory=1 << 20),
    "memory ": Limits(swap=0),
    "cpu": Limits(cpus=1.0),
    "cpu ": Limits(cpu_weight=10),
    "cpuset": Limits(cpuset="0"),
    "pids": Limits(pids=3),
    "io": Limits(io=(IoLimit(read_bps=1),)),
    "io ": Limits(io_weight=10),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "job-x"
    directory.mkdir()
    for name in FILES:
        (directory / name).touch()
    (tmp_path / "cpuset.cpus.effective").write_text("0-3,8")
    return directory


@pytest.fixture
def node(directory: Path) -> Iterator[CgroupNode]:
    with CgroupNode(directory) as node:
        yield node


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(CONTROLLERS, tmp_path, blockdev.Caller(0))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockdev, "resolve", lambda device, caller: DISK)


class TestMemory:
    def test_no_swap_unless_asked(self, node: CgroupNode, directory: Path, context: Context) -> None:
        held, warnings = cgrouplimits.apply(node, Limits(memory=256 << 20), context)
        assert (directory / "memory.max").read_text() == str(256 << 20)
        assert (directory / "memory.swap.max").read_text() == "0"
        assert held == Limits(memory=256 << 20, swap=0)
        assert warnings == ()

    def test_swap_as_asked(self, node: CgroupNode, directory: Path, context: Context) -> None:
        held, _ = cgrouplimits.apply(node, Limits(memory=1 << 20, swap=1 << 21), context)
        assert (directory / "memory.swap.max").read_text() == str(1 << 21)
        assert held.swap == 1 << 21

    def test_swap_asked_of_a_kernel_that_does_not_account_it_is_refused(
        self, node: CgroupNode, directory: Path, context: Context
    ) -> None:
        (directory / "memory.swap.max").unlink()
        with pytest.raises(MissingController, match="swap"):
            cgrouplimits.apply(node, Limits(memory=1 << 20, swap=1), context)

    def test_less_than_a_page_is_refused(self, node: CgroupNode, context: Context) -> None:
        with pytest.raises(InvalidParams, match=str(cgrouplimits.PAGE)):
            cgrouplimits.apply(node, Limits(memory=cgrouplimits.PAGE - 1), context)

    def test_a_job_dies_as_one_even_without_limits(self, node: CgroupNode, directory: Path, context: Context) -> None:
        assert cgrouplimits.apply(node, Limits(), context) == (Limits(), ())
        assert (directory / "memory.oom.group").read_text() == "1"
        assert [name for name in FILES if (directory / name).stat().st_size] == ["memory.oom.group"]


class TestCpu:
    @pytest.mark.parametrize(
        ("cpus", "quota", "period"),
        [
            (0.5, 50_000, 100_000),
            (1.0, 100_000, 100_000),
            (100_000.0, 10_000_000_000, 100_000),
            (0.01, 1_000, 100_000),
            (0.005, 1_000, 200_000),
            (0.003, 1_000, 333_333),
            (0.001, 1_000, 1_000_000),
        ],
    )
    def test_quota_is_never_less_than_the_kernel_takes(self, cpus: float, quota: int, period: int) -> None:
        assert cgrouplimits.quota_and_period(cpus) == (quota, period)

    @pytest.mark.parametrize("cpus", [0.000999, 0.0, -1.0, float("inf"), float("nan")])
    def test_what_cannot_be_held_is_refused_with_the_smallest(self, cpus: float) -> None:
        with pytest.raises(InvalidParams, match=r"0\.001"):
            cgrouplimits.quota_and_period(cpus)

    def test_written_and_read_back(self, node: CgroupNode, directory: Path, context: Context) -> None:
        held, warnings = cgrouplimits.apply(node, Limits(cpus=0.123456, cpu_weight=50), context)
        assert (directory / "cpu.max").read_text() == "12346 100000"
        assert (directory / "cpu.weight").read_text() == "50"
        assert held == Limits(cpus=0.12346, cpu_weight=50)
        assert warnings == ()

    def test_more_cpus_than_there_are_is_a_warning(self, node: CgroupNode, context: Context) -> None:
        there = os.cpu_count() or 1
        assert cgrouplimits.apply(node, Limits(cpus=float(there)), context)[1] == ()
        assert "does not bite" in cgrouplimits.apply(node, Limits(cpus=there + 0.5), context)[1][0]


class TestCpuset:
    def test_written_and_effective_read(self, node: CgroupNode, directory: Path, context: Context) -> None:
        (directory / "cpuset.cpus.effective").write_text("0-1,8")
        held, warnings = cgrouplimits.apply(node, Limits(cpuset="0-1,8"), context)
        assert held == Limits(cpuset="0-1,8")
        assert warnings == ()

    def test_less_than_asked_is_a_warning(self, node: CgroupNode, directory: Path, context: Context) -> None:
        (directory / "cpuset.cpus.effective").write_text("0")
        held, warnings = cgrouplimits.apply(node, Limits(cpuset="0-1"), context)
        assert held == Limits(cpuset="0")
        assert len(warnings) == 1

    @pytest.mark.parametrize("cpuset", ["4", "0-4", "3-8", "0,9", "0-99999999999999999999", "65536", "1" * 1000])
    def test_cpus_that_are_not_there_are_refused(self, node: CgroupNode, context: Context, cpuset: str) -> None:
        with pytest.raises(InvalidParams, match="0-3,8"):
            cgrouplimits.apply(node, Limits(cpuset=cpuset), context)

    def test_a_range_that_runs_backwards_is_refused(self, node: CgroupNode, context: Context) -> None:
        with pytest.raises(InvalidParams, match="backwards"):
            cgrouplimits.apply(node, Limits(cpuset="3-1"), context)


class TestPids:
    def test_one_more_for_pid_1(self, node: CgroupNode, directory: Path, context: Context) -> None:
        held, _ = cgrouplimits.apply(node, Limits(pids=10), context)
        assert (directory / "pids.max").read_text() == "11"
        assert held == Limits(pids=10)


@pytest.mark.usefixtures("disk")
class TestIo:
    def test_rates_of_one_device(self, node: CgroupNode, directory: Path, context: Context) -> None:
        limits = (IoLimit("/x", read_bps=1), IoLimit("/y", write_bps=2, read_iops=3, write_iops=4, read_bps=5))
        held, warnings = cgrouplimits.apply(node, Limits(io=limits), context)
        assert (directory / "io.max").read_text() == "8:0 rbps=5 wbps=2 riops=3 wiops=4"
        assert held.io == (IoLimit("8:0", read_bps=5, write_bps=2, read_iops=3, write_iops=4),)
        assert warnings == ()

    def test_a_limit_without_a_rate_is_refused(self, node: CgroupNode, context: Context) -> None:
        with pytest.raises(InvalidParams, match="no rate"):
            cgrouplimits.apply(node, Limits(io=(IoLimit("/x"),)), context)

    def test_no_block_device_is_a_warning(
        self, node: CgroupNode, directory: Path, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "resolve", lambda device, caller: blockdev.Target((), "tmpfs"))
        held, warnings = cgrouplimits.apply(node, Limits(io=(IoLimit("/x", read_bps=1),)), context)
        assert held.io == ()
        assert "/x does not bite: tmpfs" in warnings[0]
        assert (directory / "io.max").read_text() == ""

    def test_no_disk_at_all_is_a_warning(
        self, node: CgroupNode, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "resolve", lambda device, caller: blockdev.Target(()))
        assert "no disk" in cgrouplimits.apply(node, Limits(io=(IoLimit(read_bps=1),)), context)[1][0]

    def test_writes_to_a_file_system_that_does_not_say_whose_they_are(
        self, node: CgroupNode, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "resolve", lambda device, caller: blockdev.Target(("8:0",), "vfat"))
        assert "vfat" in cgrouplimits.apply(node, Limits(io=(IoLimit("/x", write_bps=1),)), context)[1][0]
        assert cgrouplimits.apply(node, Limits(io=(IoLimit("/x", read_bps=1),)), context)[1] == ()

    def test_writes_without_the_memory_controller(self, node: CgroupNode, context: Context) -> None:
        context = context._replace(available=frozenset({"io"}))
        assert "memory controller" in cgrouplimits.apply(node, Limits(io=(IoLimit("/x", write_bps=1),)), context)[1][0]

    @pytest.mark.parametrize("weight", [1, 50, 100, 101, 5_000, 10_000])
    def test_bfq_weights_stay_on_its_scale(self, weight: int) -> None:
        assert 1 <= cgrouplimits.to_bfq(weight) <= 1_000
        assert abs(cgrouplimits.from_bfq(cgrouplimits.to_bfq(weight)) - weight) <= 5

    def test_weight_where_neither_bfq_nor_iocost_acts_on_it(
        self, node: CgroupNode, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "uses_bfq", lambda: False)
        held, warnings = cgrouplimits.apply(node, Limits(io_weight=10_000), context)
        assert held == Limits(io_weight=10_000)
        assert "weight does not bite" in warnings[0]

    def test_weight_bites_with_iocost(
        self, node: CgroupNode, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "uses_bfq", lambda: False)
        (tmp_path / "io.cost.qos").write_text("8:0 enable=1 ctrl=auto rpct=95.00\n")
        assert cgrouplimits.apply(node, Limits(io_weight=200), context)[1] == ()

    def test_weight_of_a_kernel_with_bfq_only(
        self, node: CgroupNode, directory: Path, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blockdev, "uses_bfq", lambda: True)
        (directory / "io.weight").unlink()
        held, warnings = cgrouplimits.apply(node, Limits(io_weight=10_000), context)
        assert (directory / "io.bfq.weight").read_text() == "1000"
        assert held == Limits(io_weight=10_000)
        assert warnings == ()


    def test_weight_of_a_kernel_without_any(self, node: CgroupNode, directory: Path, context: Context) -> None:
        (directory / "io.weight").unlink()
        (directory / "io.bfq.weight").unlink()
        with pytest.raises(MissingController, match="modprobe bfq"):
            cgrouplimits.apply(node, Limits(io_weight=1), context)


class TestRefusals:
    @pytest.mark.parametrize("controller", CAN_BE_ASKED)
    def test_a_limit_without_its_controller(self, node: CgroupNode, context: Context, controller: str) -> None:
        context = context._replace(available=CONTROLLERS - {controller.strip()})
        with pytest.raises(MissingController, match=controller.strip()) as caught:
            cgrouplimits.apply(node, CAN_BE_ASKED[controller], context)
        assert caught.value.data == {"controller": controller.strip()}

    @pytest.mark.parametrize(
        ("filename", "limits"),
        [("memory.max", Limits(memory=1 << 20)), ("cpu.max", Limits(cpus=1.0)), ("pids.max", Limits(pids=1))],
    )
    def test_a_kernel_without_the_file(
        self, node: CgroupNode, directory: Path, context: Context, filename: str, limits: Limits
    ) -> None:
        (directory / filename).unlink()
        with pytest.raises(MissingController, match=filename):
            cgrouplimits.apply(node, limits, context)

    def test_every_field_of_limits_is_looked_at(self, node: CgroupNode, context: Context) -> None:
        """A field that is added to Limits is not to be dropped silently."""
        asked = {name for limits in CAN_BE_ASKED.values() for name in msgspec.structs.asdict(limits)
                 if getattr(limits, name) not in (None, ())}
        assert asked == set(Limits.__struct_fields__)


class TestTotals:
    def test_written_and_lifted(self, node: CgroupNode, directory: Path) -> None:
        cgrouplimits.write_totals(node, Limits(memory=1 << 30, pids=100, cpus=1.5), CONTROLLERS)
        assert (directory / "memory.max").read_text() == str(1 << 30)
        assert (directory / "memory.swap.max").read_text() == "max"
        assert (directory / "pids.max").read_text() == "100"
        assert (directory / "cpu.max").read_text() == "150000 100000"
        for name in FILES:
            (directory / name).write_text("")
        cgrouplimits.write_totals(node, Limits(), CONTROLLERS)
        assert (directory / "memory.max").read_text() == "max"
        assert (directory / "cpu.max").read_text() == "max 100000"

    def test_without_the_controller_refused(self, node: CgroupNode) -> None:
        with pytest.raises(MissingController, match="pids"):
            cgrouplimits.write_totals(node, Limits(pids=3), frozenset({"cpu"}))
