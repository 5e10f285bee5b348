"""The programs that have a system call fail (faults.c), and the file that tells them which."""

from __future__ import annotations

import ctypes
import errno
import mmap
import re
import struct
import subprocess
from pathlib import Path

from workerd.init import build

HERE = Path(__file__).resolve().parent
SOURCES = [HERE / "faults.c", HERE / "faultfile.c"]
ERRORS = (errno.ENOSPC, errno.EIO, errno.ENOMEM, errno.EINTR)
_HEADER = struct.Struct("iiii48s48s")
_SHIM_FLAGS = ["-O1", "-Wno-builtin-declaration-mismatch"]


def build_library(directory: Path) -> Path:
    """For LD_PRELOAD."""
    made = directory / "faults.so"
    _cc("-shared", "-fPIC", "-DPRELOAD", *_SHIM_FLAGS, "-o", made, *SOURCES, "-ldl")
    return made


def build_init(directory: Path) -> Path:
    """A worker-init of the same sources, each of whose calls can fail."""
    made = directory / "worker-init-faults"
    text = SOURCES[0].read_text().split("#else")[-1]
    wraps = [f"-Wl,--wrap={name}" for name in re.findall(r"CALL\((\w+)\)", text)]
    version = '-DWORKER_VERSION="faults"'
    _cc("-std=gnu11", "-static", version, *_SHIM_FLAGS, *wraps, "-o", made, *SOURCES, *build.sources())
    return made


def _cc(*arguments: str | Path) -> None:
    subprocess.run(["cc", *map(str, arguments)], check=True)


def count_from_now() -> None:
    """In the process under test: its calls count from here on."""
    ctypes.CDLL(None).faults_on()


class Control:
    """The shared file: which call fails, and whether it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(4096))
        path.chmod(0o600)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)

    def arm(self, at: int, error: int, only: str = "") -> None:
        """The call number `at` from now fails with `error`; the others do not. Only those
        named `only` count, where it is not empty."""
        self.disarm()
        self._map[: _HEADER.size] = _HEADER.pack(0, error, 0, 0, b"", only.encode())
        self._map[:4] = struct.pack("i", at)

    def disarm(self) -> None:
        self._map[:4] = struct.pack("i", 0)

    def fired(self) -> str | None:
        """The name of the call that failed, if one has."""
        *_, fired, name, _ = _HEADER.unpack(self._map[: _HEADER.size])
        return name.split(b"\0")[0].decode() if fired else None

    def count(self) -> int:
        """How many calls there were."""
        return int(_HEADER.unpack(self._map[: _HEADER.size])[2])

    def close(self) -> None:
        self._map.close()
