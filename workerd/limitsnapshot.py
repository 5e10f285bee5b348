"""A cgroup's limits as the kernel has them, to put them back or to lift some.

For changing the limits of a running job as a whole: what was written before one part
was refused is undone from here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from workerd.cgroupfiles import CgroupNode, parse_nested

_FILES = {
    "memory": ("memory.max",),
    "swap": ("memory.swap.max",),
    "cpus": ("cpu.max",),
    "cpu_weight": ("cpu.weight",),
    "cpuset": ("cpuset.cpus",),
    "pids": ("pids.max",),
    "io_weight": ("io.weight", "io.bfq.weight"),
}
"""by the field of Limits"""
_NO_LIMIT = {"cpu.weight": "100", "io.weight": "100", "io.bfq.weight": "100", "cpuset.cpus": ""}
_WEIGHTS = frozenset({"cpu.weight", "io.weight", "io.bfq.weight"})
_IO = "io.max"
_IO_NO_LIMIT = {"rbps": "max", "wbps": "max", "riops": "max", "wiops": "max"}

LIFTABLE = frozenset({*_FILES, "io"})


class Snapshot:
    """What the files said when it was made; a file that the kernel does not have is left out."""

    def __init__(self, node: CgroupNode) -> None:
        self._node = node
        self._before = {
            name: text for names in _FILES.values() for name in names if (text := _read(node, name)) is not None
        }
        self._io = parse_nested(_read(node, _IO) or "")

    def restore(self) -> None:
        """Put back what is not as it was. Raises OSError."""
        for name, text in self._before.items():
            if _read(self._node, name) != text:
                _write(self._node, name, text.split("\n", 1)[0].split()[-1] if name in _WEIGHTS else text)
        now = parse_nested(_read(self._node, _IO) or "")
        for device in {**now, **self._io}:
            fields = self._io.get(device, _IO_NO_LIMIT)
            if now.get(device) != fields:
                self._node.io.max = {device: fields}


def lift(node: CgroupNode, fields: Iterable[str]) -> None:
    """Take these limits (fields of Limits) away; one that is not there is none. Raises OSError."""
    for field in fields:
        if field == "io":
            for device in parse_nested(_read(node, _IO) or ""):
                node.io.max = {device: _IO_NO_LIMIT}
            continue
        for name in _FILES[field]:
            if _read(node, name) is not None:
                _write(node, name, _NO_LIMIT.get(name, "max"))


def _read(node: CgroupNode, name: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return node.core.get_property(name.encode())
    return None


def _write(node: CgroupNode, name: str, text: str) -> None:
    # An empty write is none at all: a list of no CPUs is an empty line.
    node.core.set_property(name.encode(), text or "\n")
