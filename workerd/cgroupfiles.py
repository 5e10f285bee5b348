"""The files of a cgroup v2 directory, on cgroupspy's Controller, Node and descriptors.

cgroupspy ships the v1 controllers and opens files by their whole path; here are
the v2 controllers, whose files are opened relative to the directory's fd. Two
kinds of descriptor: a `File` is a setting, and raises OSError (with the file's
name) where the kernel has none; an `Account` is a figure that the kernel keeps,
and is None where it keeps none. Formats: kernel,
Documentation/admin-guide/cgroup-v2.rst, "Interface Files".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    # cgroupspy has no type information; this is all of it that the project uses.
    class BaseFileInterface:
        def __init__(self, filename: str, readonly: bool | None = None, writeonly: bool | None = None) -> None: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...
        def __set__(self, instance: Any, value: Any) -> None: ...
        def sanitize_get(self, value: str) -> Any: ...
        def sanitize_set(self, value: Any) -> str | int | None: ...

    class FlagFile(BaseFileInterface):
        def __get__(self, instance: Any, owner: Any = None) -> bool: ...
        def __set__(self, instance: Any, value: bool) -> None: ...

    class MultiLineIntegerFile(BaseFileInterface):
        def __get__(self, instance: Any, owner: Any = None) -> list[int]: ...
        def __set__(self, instance: Any, value: Iterable[int]) -> None: ...

    class Controller:
        procs = MultiLineIntegerFile("cgroup.procs")

        def __init__(self, node: CgroupNode) -> None:
            self.node = node

    class Node:
        full_path: bytes

        def __init__(self, name: bytes, parent: Node | None = None) -> None: ...
else:
    from cgroupspy.controllers import Controller
    from cgroupspy.interfaces import BaseFileInterface, FlagFile
    from cgroupspy.nodes import Node

T = TypeVar("T")

_NO_ACCOUNT = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})
"""no such file in this kernel; the cgroup is going away; PSI is switched off"""


_ROOM = 16_384
"""bytes for all of a figure's file: even of io.stat for a hundred disks"""


class File(BaseFileInterface, Generic[T]):
    """A setting."""

    def __get__(self, instance: Any, owner: Any = None) -> T:
        value: T = super().__get__(instance, owner)
        return value

    def __set__(self, instance: Any, value: T) -> None:
        super().__set__(instance, value)


class Account(BaseFileInterface, Generic[T]):
    """A figure, read only; None where this kernel does not keep it."""

    readonly = True

    def __get__(self, instance: Any, owner: Any = None) -> T | None:
        try:
            value: T = super().__get__(instance, owner)
        except OSError as error:
            if error.errno in _NO_ACCOUNT:
                return None
            raise
        return value


class MaxFile(File[int | None]):
    """A number, or `max`, which is None."""

    def sanitize_get(self, value: str) -> int | None:
        return None if value == "max" else int(value)

    def sanitize_set(self, value: int | None) -> str:
        return "max" if value is None else str(value)


class CpuMaxFile(File[tuple[int | None, int]]):
    """`QUOTA PERIOD` in microseconds; a quota of `max` is None."""

    def sanitize_get(self, value: str) -> tuple[int | None, int]:
        quota, period = value.split()
        return (None if quota == "max" else int(quota)), int(period)

    def sanitize_set(self, value: tuple[int | None, int]) -> str:
        quota, period = value
        return f"{'max' if quota is None else quota} {period}"


class WeightFile(File[int]):
    """`100`, or `default 100` and perhaps lines for single devices."""

    def sanitize_get(self, value: str) -> int:
        return int(value.split("\n", 1)[0].split()[-1])

    def sanitize_set(self, value: int) -> str:
        return str(value)


class TextFile(File[str]):
    """As it is: a list of CPUs such as `0-3,6`, which may be empty."""


class WordsFile(File[frozenset[str]]):
    """Names of controllers. What is assigned is switched on besides what is on."""

    def sanitize_get(self, value: str) -> frozenset[str]:
        return frozenset(value.split())

    def sanitize_set(self, value: frozenset[str]) -> str:
        return " ".join(f"+{name}" for name in sorted(value))


def parse_nested(value: str) -> dict[str, dict[str, str]]:
    """Nested keyed text: {"8:0": {"rbytes": "1", …}}.

    By token and not by line: kernels before 5.14 wrote a device without figures
    into io.stat with no newline after it.
    """
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for token in value.split():
        key, equals, number = token.partition("=")
        if equals:
            fields[key] = number
        else:
            fields = found.setdefault(token, {})
    return found


class IoMaxFile(File[dict[str, dict[str, str]]]):
    """io.max: {"8:0": {"rbps": "1048576", "wbps": "max", …}}. The kernel takes one
    device a write, and leaves the keys that are not named as they are."""

    def sanitize_get(self, value: str) -> dict[str, dict[str, str]]:
        return parse_nested(value)

    def sanitize_set(self, value: dict[str, dict[str, str]]) -> str:
        ((device, fields),) = value.items()
        return " ".join((device, *(f"{key}={number}" for key, number in fields.items())))


class Count(Account[int]):
    def sanitize_get(self, value: str) -> int:
        return int(value)


def parse_flat(value: str) -> dict[str, int]:
    """`KEY NUMBER` lines; an empty file is an empty dict."""
    words = value.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


class FlatKeyed(Account[dict[str, int]]):
    def sanitize_get(self, value: str) -> dict[str, int]:
        return parse_flat(value)


class NestedKeyed(Account[dict[str, dict[str, str]]]):
    def sanitize_get(self, value: str) -> dict[str, dict[str, str]]:
        return parse_nested(value)


def parse_pressure(value: str) -> int:
    """The `some` total of a PSI file, in microseconds."""
    some, _, _ = value.partition("\n")
    return int(some.rpartition("total=")[2])


class V2Controller(Controller):
    """File access relative to the node's fd: one third of the time that whole paths
    take, and it can never reach another cgroup of the same name made later."""

    def get_property(self, filename: bytes) -> str:
        try:
            return _read(self.node.fd, filename)
        except OSError as error:
            error.filename = self._name(filename)
            raise

    def set_property(self, filename: bytes, value: str | int) -> None:
        try:
            _write(self.node.fd, filename, str(value).encode())
        except OSError as error:
            error.filename = self._name(filename)
            raise

    def _name(self, filename: bytes) -> str:
        return os.fsdecode(os.path.join(self.node.full_path, filename))


def _read(dir_fd: int, filename: bytes) -> str:
    fd = os.open(filename, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        content = b""
        while chunk := os.read(fd, 65536):  # a short read is not the end of a seq_file
            content += chunk
    finally:
        os.close(fd)
    return content.decode().strip()


def read_account(dir_fd: int, filename: bytes) -> str | None:
    """What the file of a figure holds; None where this kernel does not keep it. Such a file
    is one record of the kernel's (seq_file), which a read gives whole where there is room."""
    try:
        fd = os.open(filename, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            content = os.read(fd, _ROOM)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NO_ACCOUNT:
            return None
        raise
    return content.decode() if len(content) < _ROOM else _read(dir_fd, filename)


def _write(dir_fd: int, filename: bytes, value: bytes) -> None:
    fd = os.open(filename, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, value)  # the kernel takes it whole or not at all
    finally:
        os.close(fd)


class CoreController(V2Controller):
    controllers = WordsFile("cgroup.controllers", readonly=True)
    subtree_control = WordsFile("cgroup.subtree_control")
    events = FlatKeyed("cgroup.events")
    freeze = FlagFile("cgroup.freeze")
    kill = FlagFile("cgroup.kill", writeonly=True)


class MemoryController(V2Controller):
    max = MaxFile("memory.max")
    swap_max = MaxFile("memory.swap.max")
    oom_group = FlagFile("memory.oom.group")
    events = FlatKeyed("memory.events")
    current = Count("memory.current")


class CpuController(V2Controller):
    max = CpuMaxFile("cpu.max")
    weight = WeightFile("cpu.weight")
    stat = FlatKeyed("cpu.stat")


class CpusetController(V2Controller):
    cpus = TextFile("cpuset.cpus")
    effective = TextFile("cpuset.cpus.effective", readonly=True)
    offered = TextFile("../cpuset.cpus.effective", readonly=True)
    """what the parent has to give"""


class IoController(V2Controller):
    max = IoMaxFile("io.max")
    weight = WeightFile("io.weight")
    bfq_weight = WeightFile("io.bfq.weight")
    cost_qos = NestedKeyed("io.cost.qos")
    """in the root of the hierarchy only"""


class PidsController(V2Controller):
    max = MaxFile("pids.max")
    events = FlatKeyed("pids.events")


class CgroupNode(Node):
    """One cgroup directory, held open: `fd` is owned, and -1 once closed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError."""
        super().__init__(os.fsencode(path))
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    # Made when they are asked for: kept, they would be the largest part of what a job takes
    # of the daemon's memory.

    @property
    def core(self) -> CoreController:
        return CoreController(self)

    @property
    def memory(self) -> MemoryController:
        return MemoryController(self)

    @property
    def cpu(self) -> CpuController:
        return CpuController(self)

    @property
    def cpuset(self) -> CpusetController:
        return CpusetController(self)

    @property
    def io(self) -> IoController:
        return IoController(self)

    @property
    def pids(self) -> PidsController:
        return PidsController(self)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HeldAccounts:
    """A cgroup's figures whose files stay open between two readings, for the kernel makes
    them anew for a read from the beginning. Owns those files; the node stays its owner's."""

    __slots__ = ("_files", "_node")

    def __init__(self, node: CgroupNode) -> None:
        self._node = node
        self._files: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._files)

    def read(self, filename: bytes) -> str | None:
        """As `read_account`."""
        try:
            fd = self._files.get(filename)
            if fd is None:
                fd = os.open(filename, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._node.fd)
                self._files[filename] = fd
            content = os.pread(fd, _ROOM, 0)
        except OSError as error:
            if error.errno in _NO_ACCOUNT:
                return None
            raise
        return content.decode() if len(content) < _ROOM else read_account(self._node.fd, filename)

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
