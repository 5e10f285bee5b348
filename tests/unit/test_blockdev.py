"""From a path, node or number to block devices: a made-up sysfs, and the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workerd import blockdev
from workerd.blockdev import Caller, Disk, Target
from workerd.errors import InvalidParams

ROOT = Caller(0)
NOBODY = Caller(65_534, (65_534,))


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """sda with a partition, dm-0 on it, an unused loop device, a CD drive with no disc."""
    sysfs = tmp_path / "sys"
    (sysfs / "dev" / "block").mkdir(parents=True)
    (sysfs / "block").mkdir()
    devices = [("sda", "8:0", 2048), ("dm-0", "253:0", 1024), ("loop0", "7:0", 512), ("sr0", "11:0", 0)]
    for name, number, size in devices:
        device = sysfs / "devices" / name
        (device / "slaves").mkdir(parents=True)
        (device / "queue").mkdir()
        (device / "queue" / "scheduler").write_text("[none] mq-deadline\n")
        (device / "dev").write_text(f"{number}\n")
        (device / "size").write_text(f"{size}\n")
        (sysfs / "block" / name).symlink_to(device)
        (sysfs / "dev" / "block" / number).symlink_to(device)
    part = sysfs / "devices" / "sda" / "sda1"
    part.mkdir()
    (part / "partition").write_text("1\n")
    (part / "dev").write_text("8:1\n")
    (sysfs / "dev" / "block" / "8:1").symlink_to(part)
    (sysfs / "devices" / "dm-0" / "slaves" / "sda1").symlink_to(part)
    return sysfs


class TestSysfs:
    def test_disks_are_those_with_something_in_them(self, sysfs: Path) -> None:
        assert blockdev.disks(sysfs) == [Disk("dm-0", "253:0"), Disk("sda", "8:0")]

    def test_no_device_named_is_every_disk(self, sysfs: Path) -> None:
        assert blockdev.resolve(None, ROOT, sysfs) == Target(("253:0", "8:0"))

    def test_a_partition_is_its_disk(self, sysfs: Path) -> None:
        assert blockdev.whole("8:1", sysfs) == "8:0"
        assert blockdev.resolve("8:1", ROOT, sysfs) == Target(("8:0",))

    def test_a_loop_device_can_be_named(self, sysfs: Path) -> None:
        assert blockdev.resolve("7:0", ROOT, sysfs) == Target(("7:0",))

    def test_an_unknown_number_is_refused_with_those_there_are(self, sysfs: Path) -> None:
        with pytest.raises(InvalidParams, match=r"9:9: no such block device.*8:0 \(sda\)"):
            blockdev.resolve("9:9", ROOT, sysfs)

    def test_io_through_stacked_devices_is_counted_below_them(self, sysfs: Path) -> None:
        assert [blockdev.is_stacked(number, sysfs) for number in ("8:0", "253:0", "7:0", "9:9")] == [
            False, True, True, False,
        ]  # fmt: skip

    def test_bfq_is_seen(self, sysfs: Path) -> None:
        assert not blockdev.uses_bfq(sysfs)
        (sysfs / "devices" / "sda" / "queue" / "scheduler").write_text("none mq-deadline [bfq]\n")
        assert blockdev.uses_bfq(sysfs)


class TestPaths:
    @pytest.mark.parametrize("device", ["", "sda", "dev/sda", "8:", "8:0:0", "/a\0b", "C:\\"])
    def test_neither_a_path_nor_a_number(self, device: str) -> None:
        with pytest.raises(InvalidParams, match="MAJOR:MINOR"):
            blockdev.resolve(device, ROOT)

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidParams, match="No such file"):
            blockdev.resolve(str(tmp_path / "no" / "where"), ROOT)

    def test_a_file_is_no_directory(self) -> None:
        with pytest.raises(InvalidParams, match="Not a directory"):
            blockdev.resolve(f"{__file__}/x", ROOT)

    def test_a_character_device_is_refused(self) -> None:
        with pytest.raises(InvalidParams, match="character device"):
            blockdev.resolve("/dev/null", ROOT)

    def test_a_file_system_without_a_block_device(self) -> None:
        assert blockdev.resolve("/proc/version", ROOT) == Target((), "proc")

    def test_a_path_on_a_disk(self) -> None:
        target = blockdev.resolve(__file__, ROOT)
        device = os.stat(__file__).st_dev
        if os.major(device):
            number = f"{os.major(device)}:{os.minor(device)}"
            assert target.devices == (blockdev.whole(number),)
        assert target.filesystem

    def test_a_symbolic_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "up").symlink_to("..")
        (tmp_path / "absolute").symlink_to("/proc")
        assert blockdev.resolve(f"{tmp_path}/up//{tmp_path.name}/./absolute/version", ROOT).filesystem == "proc"

    def test_a_circle_of_links_ends(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("a")
        with pytest.raises(InvalidParams, match="symbolic links"):
            blockdev.resolve(str(tmp_path / "a"), ROOT)

    def test_no_fd_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("a")
        before = os.listdir("/proc/self/fd")
        for path in (tmp_path, tmp_path / "a", tmp_path / "no"):
            try:
                blockdev.resolve(str(path), ROOT)
            except InvalidParams:
                pass
        assert os.listdir("/proc/self/fd") == before


class TestPermissions:
    """A caller learns nothing of directories that he may not search."""

    @pytest.fixture
    def closed(self, tmp_path: Path) -> Path:
        for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            path.chmod(0o711)
        if not all(path.stat().st_mode & 0o001 for path in tmp_path.parents):
            pytest.skip("the temporary directory is inside one that is closed to others")
        closed = tmp_path / "closed"
        closed.mkdir()
        (closed / "file").touch()
        return closed

    @pytest.mark.parametrize("name", ["file", "nothing"])
    def test_the_same_answer_whether_or_not_it_is_there(self, closed: Path, name: str) -> None:
        closed.chmod(0o700)
        with pytest.raises(InvalidParams, match="Permission denied"):
            blockdev.resolve(str(closed / name), NOBODY)

    def test_through_a_link_as_well(self, closed: Path) -> None:
        closed.chmod(0o700)
        (closed.parent / "link").symlink_to(closed / "file")
        with pytest.raises(InvalidParams, match="Permission denied"):
            blockdev.resolve(str(closed.parent / "link"), NOBODY)

    def test_others_may(self, closed: Path) -> None:
        closed.chmod(0o701)
        assert blockdev.resolve(str(closed / "file"), NOBODY) == blockdev.resolve(str(closed), ROOT)

    @pytest.mark.parametrize(
        ("mode", "group", "others"), [(0o100, False, False), (0o010, True, False), (0o001, False, True)]
    )
    def test_a_groups_bits_hold_for_its_members(self, closed: Path, mode: int, group: bool, others: bool) -> None:
        closed.chmod(mode)
        status = closed.stat()
        assert Caller(status.st_uid + 1, (status.st_gid,)).may_search(status) is group
        assert Caller(status.st_uid + 1, (status.st_gid + 1,)).may_search(status) is others
        assert ROOT.may_search(status)
