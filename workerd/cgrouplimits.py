"""A job's limits, written to its cgroup and read back from it.

A limit is written or refused, never dropped: one that the host cannot hold is
MissingController, one that makes no sense is InvalidParams, and one that is
written but will not bite is a warning. What comes back is what the kernel says
afterwards, which rounds (memory to pages, say).
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from workerd import blockdev
from workerd.cgroupfiles import CgroupNode
from workerd.errors import InvalidParams, MissingController
from workerd.job import IoLimit, Limits

CONTROLLERS = frozenset({"cpu", "cpuset", "io", "memory", "pids"})

PERIOD = 100_000
MIN_QUOTA, MAX_PERIOD = 1_000, 1_000_000
"""microseconds; the kernel's bounds of cpu.max (kernel/sched/core.c, min_cfs_quota_period)"""
MIN_CPUS = MIN_QUOTA / MAX_PERIOD
PAGE = os.sysconf("SC_PAGE_SIZE")
MAX_BFQ_WEIGHT = 1_000
CPUS_POSSIBLE = 1 << 16
"""more than any kernel can have (NR_CPUS): a longer list is not even looked at"""
CGROUP_WRITEBACK = frozenset({"ext2", "ext3", "ext4", "btrfs", "f2fs", "xfs"})
"""file systems whose buffered writes are counted against the cgroup that made
them (kernel, Documentation/admin-guide/cgroup-v2.rst, "Writeback")"""

_NO_SWAP_ACCOUNT = "this kernel does not account swap: boot with swapaccount=1"
_IO_KEYS = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


class Context(NamedTuple):
    """What decides whether a limit can be held and will bite."""

    available: frozenset[str]
    """controllers switched on in this cgroup"""
    mount: Path
    """where the hierarchy is mounted"""
    caller: blockdev.Caller
    """with whose permissions paths are looked up"""


def apply(node: CgroupNode, limits: Limits, context: Context) -> tuple[Limits, tuple[str, ...]]:
    """Write `limits`; the limits as the kernel then has them, and the warnings.

    Raises MissingController, InvalidParams, or OSError with the file's name; some
    limits may then be written already, so the cgroup is to be removed.
    """
    warnings: list[str] = []
    held: dict[str, Any] = {}
    require(limits, context.available)
    if "memory" in context.available:
        node.memory.oom_group = True
    if limits.memory is not None or limits.swap is not None:
        held |= _memory(node, limits, warnings)
    if limits.cpus is not None:
        held["cpus"] = _cpus(node, limits.cpus, warnings)
    if limits.cpu_weight is not None:
        with _limit("cpu.weight", "cpu", limits.cpu_weight):
            node.cpu.weight = limits.cpu_weight
            held["cpu_weight"] = node.cpu.weight
    if limits.cpuset is not None:
        held["cpuset"] = _cpuset(node, limits.cpuset, warnings)
    if limits.pids is not None:
        held["pids"] = _pids(node, limits.pids)
    if limits.io:
        held["io"] = _io(node, limits.io, context, warnings)
    if limits.io_weight is not None:
        held["io_weight"] = _io_weight(node, limits.io_weight, context, warnings)
    return Limits(**held), tuple(dict.fromkeys(warnings))


def require(limits: Limits, available: frozenset[str]) -> None:
    """Raises MissingController for the first limit that no controller can hold."""
    needs = {
        "memory": limits.memory is not None or limits.swap is not None,
        "cpu": limits.cpus is not None or limits.cpu_weight is not None,
        "cpuset": limits.cpuset is not None,
        "pids": limits.pids is not None,
        "io": bool(limits.io) or limits.io_weight is not None,
    }
    for controller, needed in needs.items():
        if needed and controller not in available:
            raise MissingController(
                f"this machine cannot limit {controller}: its cgroup v2 hierarchy lacks the {controller} controller",
                controller=controller,
            )


def quota_and_period(cpus: float) -> tuple[int, int]:
    """Microseconds for cpu.max. The period is 100 ms, longer where the quota would
    be less than the kernel takes. Raises InvalidParams below MIN_CPUS."""
    if not MIN_CPUS <= cpus < math.inf:
        raise InvalidParams(f"a limit of {cpus:g} CPUs cannot be held: the smallest is {MIN_CPUS:g}")
    quota = round(cpus * PERIOD)
    if quota >= MIN_QUOTA:
        return quota, PERIOD
    return MIN_QUOTA, min(MAX_PERIOD, round(MIN_QUOTA / cpus))


def parse_cpus(text: str) -> list[tuple[int, int]]:
    """Ranges, ends included, of a list such as `0-3,6`. Never expanded before they
    are bounded. Raises InvalidParams."""
    ranges = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise InvalidParams(f"cpuset {text!r}: the range {part} runs backwards")
        ranges.append((low, high))
    return ranges


def write_totals(node: CgroupNode, limits: Limits, available: frozenset[str]) -> None:
    """The totals of all jobs in `node`: memory, swap, pids, cpus; None lifts one.
    No swap limit is made up here, since a job may have been granted some."""
    require(limits, available)
    if "memory" in available:
        with _limit("memory.max", "memory", limits.memory):
            node.memory.max = limits.memory
        try:
            node.memory.swap_max = limits.swap
        except FileNotFoundError as error:
            if limits.swap is not None:
                raise MissingController(_NO_SWAP_ACCOUNT, controller="memory") from error
    if "pids" in available:
        with _limit("pids.max", "pids", limits.pids):
            node.pids.max = limits.pids
    if "cpu" in available:
        with _limit("cpu.max", "cpu", limits.cpus):
            node.cpu.max = (None, PERIOD) if limits.cpus is None else quota_and_period(limits.cpus)


def _memory(node: CgroupNode, limits: Limits, warnings: list[str]) -> dict[str, int | None]:
    """memory.max, and memory.swap.max: what was asked for, or none at all."""
    held: dict[str, int | None] = {}
    if limits.memory is not None:
        if limits.memory < PAGE:
            raise InvalidParams(f"a memory limit of {limits.memory} bytes: the smallest is {PAGE}, one page")
        with _limit("memory.max", "memory", limits.memory):
            node.memory.max = limits.memory
            held["memory"] = node.memory.max
    try:
        node.memory.swap_max = limits.swap or 0
        held["swap"] = node.memory.swap_max
    except FileNotFoundError as error:
        if limits.swap:
            raise MissingController(_NO_SWAP_ACCOUNT, controller="memory") from error
        if _has_swap():
            warnings.append("this kernel does not account swap: the job may use swap beside its memory limit")
    return held


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False


def _cpus(node: CgroupNode, cpus: float, warnings: list[str]) -> float | None:
    wanted = quota_and_period(cpus)
    with _limit("cpu.max", "cpu", cpus):
        node.cpu.max = wanted
        quota, period = node.cpu.max
    there = os.cpu_count() or 1
    if cpus > there:
        warnings.append(f"a limit of {cpus:g} CPUs does not bite: this machine has {there}")
    return None if quota is None else quota / period


def _pids(node: CgroupNode, pids: int) -> int | None:
    """One more than asked for: PID 1 is ours, not the job's."""
    with _limit("pids.max", "pids", pids):
        node.pids.max = pids + 1
        held = node.pids.max
    return None if held is None else held - 1


def _cpuset(node: CgroupNode, cpuset: str, warnings: list[str]) -> str:
    """Refuses CPUs that the parent cannot give: the kernel would leave them out, or,
    where none is left, give the job all of the parent's."""
    asked = parse_cpus(cpuset)
    with _limit("cpuset.cpus", "cpuset", cpuset):
        offered = node.cpuset.offered
        there = {cpu for low, high in parse_cpus(offered) for cpu in range(low, high + 1)}
        for low, high in asked:
            if high >= CPUS_POSSIBLE or not there.issuperset(range(low, high + 1)):
                raise InvalidParams(f"cpuset {cpuset}: not all of these CPUs are there for jobs, which have {offered}")
        node.cpuset.cpus = cpuset
        held = node.cpuset.effective
    if parse_cpus(held) != parse_cpus(node.cpuset.cpus):
        warnings.append(f"of the CPUs {cpuset} the job may use {held}")
    return held


def _io(node: CgroupNode, limits: tuple[IoLimit, ...], context: Context, warnings: list[str]) -> tuple[IoLimit, ...]:
    wanted: dict[str, dict[str, str]] = {}
    for limit in limits:
        values = {key: str(getattr(limit, name)) for name, key in _IO_KEYS.items() if getattr(limit, name) is not None}
        if not values:
            raise InvalidParams(f"I/O limit on {limit.device or 'every disk'}: says no rate")
        target = blockdev.resolve(limit.device, context.caller)
        warnings += _io_warnings(limit, target, context)
        for device in target.devices:
            wanted.setdefault(device, {}).update(values)
    for device, values in wanted.items():
        with _limit("io.max", "io", f"{device} {' '.join(f'{key}={value}' for key, value in values.items())}"):
            node.io.max = {device: values}
    held = node.io.max if wanted else {}
    return tuple(_io_limit(device, held.get(device, {})) for device in wanted)


def _io_limit(device: str, values: dict[str, str]) -> IoLimit:
    rates = {name: int(values[key]) for name, key in _IO_KEYS.items() if values.get(key, "max") != "max"}
    return IoLimit(device=device, **rates)


def _io_warnings(limit: IoLimit, target: blockdev.Target, context: Context) -> Iterator[str]:
    """Why `limit` will not bite, or not wholly."""
    if not target.devices and limit.device is None:
        yield "the I/O limit does not bite: this machine has no disk"
    elif not target.devices:
        yield f"the I/O limit on {limit.device} does not bite: {target.filesystem} is on no block device"
    elif limit.write_bps is not None or limit.write_iops is not None:
        if "memory" not in context.available:
            yield "buffered writes are not limited: that takes the memory controller too"
        elif target.filesystem is not None and target.filesystem not in CGROUP_WRITEBACK:
            yield f"buffered writes to {limit.device} are not limited: {target.filesystem} does not say whose they are"


def _io_weight(node: CgroupNode, weight: int, context: Context, warnings: list[str]) -> int:
    """io.weight, and io.bfq.weight: a kernel has either, or both, and each acts on
    other disks. BFQ's own scale ends at 1000."""
    with _limit("io.weight", "io", weight):
        try:
            node.io.weight = weight
            held = node.io.weight
        except FileNotFoundError:
            bfq = _write_bfq(node, weight)
            if not bfq:
                message = "this kernel has no I/O weights: `modprobe bfq`, or one with CONFIG_BLK_CGROUP_IOCOST"
                raise MissingController(message, controller="io") from None
            held = from_bfq(node.io.bfq_weight)
        else:
            bfq = _write_bfq(node, weight)
    if not (bfq and blockdev.uses_bfq()) and not _iocost_enabled(context.mount):
        warnings.append("the I/O weight does not bite: no disk has the bfq scheduler or io.cost.qos switched on")
    return held


def _write_bfq(node: CgroupNode, weight: int) -> bool:
    """Whether there is an io.bfq.weight, which is there while bfq is loaded."""
    try:
        node.io.bfq_weight = to_bfq(weight)
    except FileNotFoundError:
        return False
    return True


def to_bfq(weight: int) -> int:
    """1…100…10000 onto 1…100…1000, the default staying the default."""
    return weight if weight <= 100 else 100 + round((weight - 100) * (MAX_BFQ_WEIGHT - 100) / (10_000 - 100))


def from_bfq(weight: int) -> int:
    return weight if weight <= 100 else 100 + round((weight - 100) * (10_000 - 100) / (MAX_BFQ_WEIGHT - 100))


def _iocost_enabled(mount: Path) -> bool:
    try:
        with CgroupNode(mount) as root:
            return any(device.get("enable") == "1" for device in (root.io.cost_qos or {}).values())
    except OSError:
        return False


@contextmanager
def _limit(filename: str, controller: str, value: object) -> Iterator[None]:
    """OSErrors of writing one limit, told as what they mean for it."""
    try:
        yield
    except FileNotFoundError as error:
        if not os.path.isdir(os.path.dirname(os.fspath(error.filename))):
            raise  # the whole cgroup is gone
        raise MissingController(f"this kernel has no {filename}", controller=controller) from error
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ERANGE, errno.ENODEV):
            raise
        raise InvalidParams(f"the kernel refuses {value} for {filename}: {error.strerror}") from error
