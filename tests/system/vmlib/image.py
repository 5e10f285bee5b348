"""The base image: a Debian root on ext4, its kernel, and an initial RAM disk.

Made with mmdebstrap from the machine's own apt sources, without loop devices
(mke2fs -d fills the file system). Root builds it in place; anybody else in a
user namespace, which needs ranges in /etc/subuid and /etc/subgid.

Measured on two cores with a near mirror: 31 s for bookworm when idle, 50 s
with busy neighbours; 4 GiB sparse, 400 MiB on disk.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmlib import cache, initrd, sources, tools
from vmlib.notice import step

RELEASES = ("bookworm", "trixie")
GUEST = Path(__file__).resolve().parent.parent / "guest"
SIZE = "4G"

PACKAGES = (
    "busybox-static",  # the initial RAM disk
    "dbus",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "make",
    "nftables",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
)
NOT_UNPACKED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")

# Code whose change must make a new image; the rest of vmlib only uses it.
BUILDER = ("frames.py", "image.py", "initrd.py")


@dataclass(frozen=True)
class Image:
    """A built base image; `disk` is raw ext4 and never written to."""

    key: str
    release: str
    disk: Path
    kernel: Path
    initrd: Path
    python: str  # "3.11"


def default_release() -> str:
    """The Debian release to use where nobody says: WORKER_VM_RELEASE, else the first."""
    return os.environ.get("WORKER_VM_RELEASE") or RELEASES[0]


def image_key(release: str, apt_sources: str, more: tuple[str, ...] = ()) -> str:
    here = Path(__file__).parent
    code = [(here / name).read_bytes() for name in BUILDER]
    return cache.key(release, apt_sources, " ".join(PACKAGES + more), cache.files_key(GUEST), *code)


@contextmanager
def base(release: str, more: tuple[str, ...] = ()) -> Iterator[Image]:
    """The base image of `release`, with more packages than usual where some are named;
    built when absent. Raises BuildFailed, MissingTool."""
    apt_sources = sources.for_release(release)
    name = image_key(release, apt_sources, more)
    with cache.entry("base", name, lambda where: build(where, release, apt_sources, more)) as path:
        yield Image(
            key=name,
            release=release,
            disk=path / "root.img",
            kernel=path / "vmlinuz",
            initrd=path / "initrd.img",
            python=(path / "python-version").read_text().strip(),
        )


def build(where: Path, release: str, apt_sources: str, more: tuple[str, ...] = ()) -> None:
    """Make a base image's files in the directory `where`."""
    tools.require("mmdebstrap", "mke2fs", *(() if os.geteuid() == 0 else ("newuidmap",)))
    (where / "debian.sources").write_text(apt_sources)
    (where / "guest.tar").write_bytes(guest_tar())
    with step(f"Debian {release} with mmdebstrap"):
        bootstrap(where, release, PACKAGES + more)
    with step("ext4 image"):
        make_disk(where)
    parts = where / "worker-vm"
    (where / "initrd.img").write_bytes(initrd.build(parts, GUEST / "initrd-init"))
    for name in ("vmlinuz", "python-version", "kernel-version"):
        (parts / name).rename(where / name)
    shutil.rmtree(parts)
    (where / "guest.tar").unlink()


def guest_tar() -> bytes:
    """What is laid over the new root: guest/rootfs and the agent's copy of frames.py."""
    rootfs = GUEST / "rootfs"
    files = {str(p.relative_to(rootfs)): p for p in rootfs.rglob("*") if p.is_file()}
    files = {name: path for name, path in files.items() if "__pycache__" not in name}
    files["usr/local/lib/worker-vm/frames.py"] = Path(__file__).with_name("frames.py")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(member, io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def bootstrap(where: Path, release: str, packages: tuple[str, ...]) -> None:
    """mmdebstrap into `where`/root (as root) or `where`/root.tar (otherwise)."""
    root = os.geteuid() == 0
    command = [
        "mmdebstrap",
        f"--mode={'root' if root else 'unshare'}",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "5"',
        *(f"--aptopt={line}" for line in sources.apt_settings()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_UNPACKED),
        f"--customize-hook=tar-in {where}/guest.tar /",
        f'--customize-hook=chroot "$1" sh -s <{GUEST}/setup.sh',
        f"--customize-hook=copy-out /boot/worker-vm {where}",
        release,
        str(where / ("root" if root else "root.tar")),
        str(where / "debian.sources"),
    ]
    # INITRD=No: the kernel package's hook then makes no initial RAM disk.
    tools.run(command, env=os.environ | {"INITRD": "No"})


def make_disk(where: Path) -> None:
    """An ext4 image of the root, sparse, without mounting anything."""
    disk, tree, archive = where / "root.img", where / "root", where / "root.tar"
    mke2fs = (
        f"{tools.find('mke2fs')} -q -t ext4 -L root -m 0 "
        "-E lazy_itable_init=1,lazy_journal_init=1 -d {tree} {disk} {size}"
    ).format(tree=tree, disk=disk, size=SIZE)
    if os.geteuid() == 0:
        tools.run(["sh", "-c", mke2fs])
        shutil.rmtree(tree)
        return
    unpack = f"mkdir {tree} && tar -C {tree} -x --numeric-owner --exclude='./dev/*' -f {archive}"
    script = f"{unpack} && {mke2fs} && rm -rf {tree}"
    tools.run(["unshare", "--map-root-user", "--map-auto", "--", "sh", "-c", script])
    archive.unlink()
