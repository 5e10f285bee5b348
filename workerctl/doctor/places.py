"""The disks under workerd's directories: room for records and output."""

from __future__ import annotations

import os

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host
from workerd.units import format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

STATE, RUNTIME = "/var/lib/workerd", "/run/workerd"
LITTLE, TOO_LITTLE = 1 << 30, 64 << 20
FEW_FILES = 10_000


def check(host: Host) -> Iterator[Finding]:
    yield _place(host, STATE, little=LITTLE, remedy="free some: workerctl prune --older-than 7d, or move it to a disk")
    yield _place(host, RUNTIME, little=TOO_LITTLE, remedy="free some of /run; it is in memory")


def _place(host: Host, path: str, *, little: int, remedy: str) -> Finding:
    if not host.exists(path):
        return Finding(path, WARNING, "is not there", "systemd-tmpfiles --create, or start workerd, which makes it")
    disk = os.statvfs(host.path(path))
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    found = f"{format_size(free)} of {format_size(whole)} free"
    if disk.f_flag & os.ST_RDONLY:
        return Finding(path, FAILED, "is read-only", "mount it for writing")
    if free < min(TOO_LITTLE, whole // 20):
        return Finding(path, FAILED, found, remedy)
    if disk.f_files and disk.f_favail < FEW_FILES:
        return Finding(path, WARNING, f"{found}, room for {disk.f_favail} files", remedy)
    if free < min(little, whole // 10):
        return Finding(path, WARNING, found, remedy)
    return Finding(path, OK, found)
