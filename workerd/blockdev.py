"""From the device that an IoLimit names to the whole block devices that io.max takes.

Nothing here changes anything. Numbers are `MAJOR:MINOR`. The kernel refuses a
partition in io.max (ENODEV), so a partition becomes the disk it is on. sysfs:
kernel, Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from workerd.errors import InvalidParams

SYSFS = Path("/sys")
_NUMBER = re.compile(r"[0-9]{1,7}:[0-9]{1,7}")
_NOT_DISKS = ("loop", "ram", "zram")
_LOOP_MAJOR = 7
_MAX_LINKS = 40
"""symbolic links followed, as the kernel does (path_resolution(7))"""


class Disk(NamedTuple):
    name: str
    number: str


class Target(NamedTuple):
    """What an IoLimit.device stands for."""

    devices: tuple[str, ...]
    """whole block devices; none where the file system has none"""
    filesystem: str | None = None
    """its type, where a path on it was named"""


class Caller(NamedTuple):
    """Whose permissions a path is looked up with."""

    uid: int
    gids: Collection[int] = ()

    def may_search(self, directory: os.stat_result) -> bool:
        if self.uid == 0:
            return True
        if directory.st_uid == self.uid:
            return bool(directory.st_mode & stat.S_IXUSR)
        if directory.st_gid in self.gids:
            return bool(directory.st_mode & stat.S_IXGRP)
        return bool(directory.st_mode & stat.S_IXOTH)


def disks(sysfs: Path = SYSFS) -> list[Disk]:
    """Every disk with something in it: stacked ones (LVM, RAID, LUKS) beside those
    they are made of; not loop and RAM devices, whose I/O reaches a disk or none."""
    found = []
    for name in sorted(os.listdir(sysfs / "block")):
        if name.rstrip("0123456789") in _NOT_DISKS:
            continue
        number, size = _attribute(sysfs / "block" / name / "dev"), _attribute(sysfs / "block" / name / "size")
        if number is not None and size not in (None, "0"):
            found.append(Disk(name, number))
    return found


def resolve(device: str | None, caller: Caller, sysfs: Path = SYSFS) -> Target:
    """The block devices that `device` (IoLimit.device) stands for.

    A path is followed as the host sees it, with the caller's permissions, so that
    nobody learns through it what a directory closed to him holds. It may wait for
    a network file system. Raises InvalidParams.
    """
    if device is None:
        return Target(tuple(disk.number for disk in disks(sysfs)))
    if _NUMBER.fullmatch(device):
        return Target((whole(device, sysfs),))
    if not device.startswith("/") or "\0" in device:
        raise InvalidParams(f"I/O limit on {device!r}: give an absolute path, a device node or MAJOR:MINOR")
    try:
        fd = _open(device, caller)
    except OSError as error:
        raise InvalidParams(f"I/O limit on {device}: {error.strerror}") from error
    try:
        return _of_fd(fd, device, sysfs)
    finally:
        os.close(fd)


def whole(number: str, sysfs: Path = SYSFS) -> str:
    """The disk that a device is a part of, or itself. Raises InvalidParams where
    there is no such block device."""
    directory = sysfs / "dev" / "block" / number
    if not directory.exists():
        known = ", ".join(f"{disk.number} ({disk.name})" for disk in disks(sysfs)) or "none"
        raise InvalidParams(f"I/O limit on {number}: no such block device; the disks are: {known}")
    if not (directory / "partition").exists():
        return number
    return _attribute(directory.resolve().parent / "dev") or number


def is_stacked(number: str, sysfs: Path = SYSFS) -> bool:
    """Whether this device's I/O is done, and accounted again, by another one."""
    if number.startswith(f"{_LOOP_MAJOR}:"):
        return True
    try:
        return bool(os.listdir(sysfs / "dev" / "block" / number / "slaves"))
    except OSError:
        return False


def uses_bfq(sysfs: Path = SYSFS) -> bool:
    """Whether any disk has the BFQ scheduler, which is what io.bfq.weight acts on."""
    return any("[bfq]" in (_attribute(sysfs / "block" / disk.name / "queue/scheduler") or "") for disk in disks(sysfs))


def _attribute(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _open(path: str, caller: Caller) -> int:
    """An O_PATH fd of `path`, each directory on the way checked for the caller's
    right to search it (path_resolution(7)). Raises OSError."""
    todo, links = path.split("/")[::-1], 0
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if not caller.may_search(os.fstat(fd)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            step = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            if stat.S_ISLNK(os.fstat(step).st_mode):
                links += 1
                try:
                    target = os.readlink("", dir_fd=step)
                finally:
                    os.close(step)
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                todo += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                step = os.open("/", os.O_PATH | os.O_CLOEXEC)
            os.close(fd)
            fd = step
    except BaseException:
        os.close(fd)
        raise
    return fd


def _of_fd(fd: int, path: str, sysfs: Path) -> Target:
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        return Target((whole(_number(status.st_rdev), sysfs),))
    if stat.S_ISCHR(status.st_mode):
        raise InvalidParams(f"I/O limit on {path}: a character device, not a disk")
    filesystem, source = _mount(fd)
    if os.major(status.st_dev):
        return Target((whole(_number(status.st_dev), sysfs),), filesystem)
    # Anonymous device numbers: btrfs and the like, whose mount source is a device.
    return Target(_sources(source, sysfs), filesystem)


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _mount(fd: int) -> tuple[str | None, str]:
    """Type and source of the file system that `fd` is on (proc_pid_mountinfo(5)).
    By mount id, since a btrfs subvolume has another st_dev than its mount."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        fields = dict(line.split(":", 1) for line in info)
    mount_id = fields["mnt_id"].strip()
    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        for line in mounts:
            if line.partition(" ")[0] == mount_id:
                kind, source = line.partition(" - ")[2].split()[:2]
                return kind, source
    return None, ""


def _sources(source: str, sysfs: Path) -> tuple[str, ...]:
    """The disks of a file system mounted from `source`; all of them for a btrfs."""
    try:
        status = os.stat(source) if source.startswith("/") else None
    except OSError:
        status = None
    if status is None or not stat.S_ISBLK(status.st_mode):
        return ()
    number = _number(status.st_rdev)
    members = {number}
    for directory in (sysfs / "fs" / "btrfs").glob("*/devices"):
        numbers = {_attribute(device / "dev") for device in directory.iterdir()}
        if number in numbers:
            members |= {member for member in numbers if member}
    return tuple(sorted({whole(member, sysfs) for member in members}))
