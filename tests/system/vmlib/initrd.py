"""A tiny initial RAM disk: busybox, three drivers, and one short script.

Debian's own would do, but takes several seconds of a boot under emulation
(udev, a second module search, a file system check). Written here in the cpio
"newc" format (the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst), so that no cpio program is needed.
"""

from __future__ import annotations

import lzma
import stat
from pathlib import Path

DIRECTORIES = ("bin", "dev", "modules", "newroot")


class Archive:
    """A newc archive in memory; every entry belongs to root."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self.count += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device, the node's device, name, checksum
        fields = (self.count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self.pad()
        self.data += content
        self.pad()

    def pad(self) -> None:
        self.data += bytes(-len(self.data) % 4)

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def module(path: Path) -> tuple[str, bytes]:
    """A driver's name and plain content (newer Debian releases compress them)."""
    if path.suffix == ".xz":
        return path.stem, lzma.decompress(path.read_bytes())
    return path.name, path.read_bytes()


def build(parts: Path, init: Path) -> bytes:
    """The archive, from what the guest's setup left in `parts` and the script `init`."""
    archive = Archive()
    for name in DIRECTORIES:
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("init", stat.S_IFREG | 0o755, init.read_bytes())
    archive.add("bin/busybox", stat.S_IFREG | 0o755, (parts / "busybox").read_bytes())
    names = []
    for line in (parts / "modules" / "order").read_text().split():
        name, content = module(parts / "modules" / line)
        names.append(name)
        archive.add(f"modules/{name}", stat.S_IFREG | 0o644, content)
    order = "".join(f"{name}\n" for name in names)
    archive.add("modules/order", stat.S_IFREG | 0o644, order.encode())
    return archive.finish()
