"""The policy and the settings of /etc/workerd/workerd.toml. All defaults are here.

    admins = ["alice", 1001]      # beside root; user names or uids

    [connect]                     # empty: whoever the socket's mode lets in
    users = ["bob"]
    groups = ["staff", 4000]

    [network]                     # workerd.netconfig has the other keys
    modes = ["bridge"]            # for ordinary users, beside "none"; "host" is for admins only

    [defaults]                    # of a job that does not say
    memory = "1G"                 # also swap, cpus, cpu_weight, cpuset, pids, io_read_bps,
    max_output = "64M"            # io_write_bps, io_read_iops, io_write_iops, io_weight

    [maxima]                      # of one job; the same keys but cpuset
    memory = "8G"

    [user]                        # totals of one user's jobs: jobs (that are not finished),
                                  # max_running, memory, cpus, pids (of those that run: where
                                  # they are taken, further jobs wait), output
    jobs = 100

    [users.bob]                   # instead of [user], key by key; a name or a uid
    jobs = 500

    [groups.staff]                # for users without a [users.…] that has the key; where more
    memory = "32G"                # than one group has it, the most generous counts

    [machine]                     # totals of everybody's jobs; the same keys
    memory = "unlimited"

    [history]                     # finished jobs kept
    count = 1000
    age = "7d"

Names become uids and gids once, when the file is read. A wrong file is a
ConfigError that names the line and says what is accepted there.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from workerd.configfile import (
    UNLIMITED,
    Count,
    CpuList,
    Cpus,
    Document,
    Duration,
    Positive,
    Principal,
    Size,
    Swap,
)
from workerd.errors import ConfigError
from workerd.job import Limits, Net
from workerd.netconfig import NetworkSection, NetworkSettings, settings


class Totals(Struct, frozen=True):
    """What all jobs of a user, or of the machine, may have together; None: no limit."""

    jobs: int | None = None
    """that are not finished; one more is refused"""
    max_running: int | None = None
    """that run at once; one more waits, as it does for memory, cpus and pids"""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    output: int | None = None
    """bytes stored, of finished jobs too"""


class PerJob(Struct, frozen=True):
    """Limits of one job, and the bytes of its output that are kept."""

    limits: Limits = Limits()
    max_output: int | None = None


class Policy(Struct, frozen=True):
    """Who may do what; workerd.auth answers the questions about a peer."""

    admins: frozenset[int] = frozenset()
    """uids beside root's"""
    connect_users: frozenset[int] = frozenset()
    connect_groups: frozenset[int] = frozenset()
    nets: frozenset[Net] = frozenset({Net.NONE, Net.BRIDGE})
    """for those who are not admins"""
    defaults: PerJob = PerJob(max_output=64 << 20)
    maxima: PerJob = PerJob()
    user: Totals = Totals()
    users: dict[int, dict[str, float | None]] = {}
    """by uid: the fields of Totals that differ for this user"""
    groups: dict[int, dict[str, float | None]] = {}
    """by gid"""
    machine: Totals = Totals()
    network: NetworkSettings = NetworkSettings()

    @property
    def counts_output(self) -> bool:
        """Whether any total is on stored output."""
        return any(totals.output is not None for totals in self.all_totals())

    def all_totals(self) -> list[Totals]:
        """Every table of totals that there is."""
        tables = (*self.users.values(), *self.groups.values())
        return [self.user, self.machine, *(Totals(**table) for table in tables)]  # type: ignore[arg-type]

    def totals(self, uid: int, gids: Iterable[int]) -> Totals:
        """One user's totals: each is what [users] says, else the most generous that
        [groups] says of one of `gids`, else [user]'s."""
        said: dict[str, Any] = {}
        for gid in gids:
            for field, limit in self.groups.get(gid, {}).items():
                known = said.get(field, limit)
                said[field] = None if limit is None or known is None else max(known, limit)
        return msgspec.structs.replace(self.user, **{**said, **self.users.get(uid, {})})


class History(Struct, frozen=True):
    """Finished jobs that are kept, with their output; None: no limit."""

    count: int | None = 1000
    age: int | None = 7 * 86_400_000_000
    """microseconds since a job finished"""


class Config(Struct, frozen=True):
    policy: Policy = Policy()
    history: History = History()


def load(path: Path, *, required: bool) -> Config:
    """What the file says; all defaults where it is not there and not `required`.
    Raises ConfigError."""
    try:
        document = Document(path)
    except FileNotFoundError as error:
        if required:
            raise ConfigError(f"{path}: no such file", path=str(path), line=0) from error
        return Config()
    return _config(document)


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the tables as they are written; None is "not said"."""


class _Connect(_Section, frozen=True, forbid_unknown_fields=True):
    users: tuple[Principal, ...] = ()
    groups: tuple[Principal, ...] = ()


class _Maxima(_Section, frozen=True, forbid_unknown_fields=True):
    memory: Size | None = None
    swap: Swap | None = None
    cpus: Cpus | None = None
    cpu_weight: Positive | None = None
    pids: Positive | None = None
    io_read_bps: Size | None = None
    io_write_bps: Size | None = None
    io_read_iops: Positive | None = None
    io_write_iops: Positive | None = None
    io_weight: Positive | None = None
    max_output: Size | None = None


class _Defaults(_Maxima, frozen=True, forbid_unknown_fields=True):
    cpuset: CpuList | None = None


class _Totals(_Section, frozen=True, forbid_unknown_fields=True):
    jobs: Count | None = None
    max_running: Count | None = None
    memory: Size | None = None
    cpus: Cpus | None = None
    pids: Count | None = None
    output: Size | None = None


class _History(_Section, frozen=True, forbid_unknown_fields=True):
    count: Count | None = None
    age: Duration | None = None


class _File(_Section, frozen=True, forbid_unknown_fields=True):
    admins: tuple[Principal, ...] = ()
    connect: _Connect = _Connect()
    network: NetworkSection = NetworkSection()
    defaults: _Defaults = _Defaults()
    maxima: _Maxima = _Maxima()
    user: _Totals = _Totals()
    users: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    machine: _Totals = _Totals()
    history: _History = _History()


def _config(document: Document) -> Config:
    file = document.convert((), document.data, _File)
    policy = Policy(
        admins=_ids(document, ("admins",), file.admins, uid_of),
        connect_users=_ids(document, ("connect", "users"), file.connect.users, uid_of),
        connect_groups=_ids(document, ("connect", "groups"), file.connect.groups, gid_of),
        nets=_nets(document, file.network),
        defaults=_per_job(document, "defaults", file.defaults, Policy().defaults),
        maxima=_per_job(document, "maxima", file.maxima, Policy().maxima),
        user=Totals(**_said(file.user)),
        users=_overrides(document, "users", file.users, uid_of),
        groups=_overrides(document, "groups", file.groups, gid_of),
        machine=Totals(**_said(file.machine)),
        network=settings(document, file.network),
    )
    _check_defaults(document, file)
    return Config(policy=_clamped(policy), history=History(**_said(file.history)))


def _said(section: _Section) -> dict[str, Any]:
    """What the section says, in plain types, "unlimited" as None."""
    said: dict[str, Any] = {}
    for field, value in msgspec.structs.asdict(section).items():
        if value is not None:
            plain = next(kind for kind in (int, float, str) if isinstance(value, kind))
            said[field] = None if value == UNLIMITED else plain(value)
    return said


def _per_job(document: Document, name: str, section: _Maxima, base: PerJob) -> PerJob:
    said = _said(section)
    max_output = said.pop("max_output", base.max_output)
    limits = {field: value for field, value in said.items() if value is not None}
    rates = [field for field in limits if field.endswith(("_bps", "_iops"))]
    if rates:
        limits["io"] = [{field.removeprefix("io_"): limits.pop(field) for field in rates}]
    return PerJob(limits=document.convert((name,), limits, Limits), max_output=max_output)


def _check_defaults(document: Document, file: _File) -> None:
    """A default beyond the maximum would refuse every job that does not say."""
    maxima = _said(file.maxima)
    for field, default in _said(file.defaults).items():
        maximum = maxima.get(field)
        if maximum is not None and (default is None or default > maximum):
            raise document.error(("defaults", field), f"more than maxima.{field}, which is {maximum}")


def _clamped(policy: Policy) -> Policy:
    """The default that the file does not mention stays within the maximum that it does."""
    maximum, default = policy.maxima.max_output, policy.defaults.max_output
    if maximum is None or (default is not None and default <= maximum):
        return policy
    return msgspec.structs.replace(policy, defaults=msgspec.structs.replace(policy.defaults, max_output=maximum))


def _nets(document: Document, network: NetworkSection) -> frozenset[Net]:
    if network.modes is None:
        return Policy().nets
    for place, mode in enumerate(network.modes):
        if mode not in (Net.NONE, Net.BRIDGE):
            message = f'no such mode: {mode!r}; accepted are "none" and "bridge" ("host" is for admins only)'
            raise document.error(("network", "modes", place), message)
    return frozenset({Net.NONE, *map(Net, network.modes)})


def _ids(
    document: Document, keys: tuple[str, ...], names: Iterable[str], resolve: Callable[[str], int]
) -> frozenset[int]:
    return frozenset(_id(document, (*keys, place), name, resolve) for place, name in enumerate(names))


def _overrides(
    document: Document, name: str, tables: dict[str, Any], resolve: Callable[[str], int]
) -> dict[int, dict[str, float | None]]:
    found: dict[int, dict[str, float | None]] = {}
    for who, table in tables.items():
        number = _id(document, (name, who), who, resolve)
        if number in found:
            raise document.error((name, who), f"{number} has a table already, under another name")
        found[number] = _said(document.convert((name, who), table, _Totals))
    return found


def _id(document: Document, keys: tuple[str | int, ...], name: str, resolve: Callable[[str], int]) -> int:
    try:
        return resolve(document.convert(keys, name, Principal))
    except (KeyError, ValueError) as error:
        kind = "user" if resolve is uid_of else "group"
        raise document.error(keys, f"no such {kind}: {name!r}; accepted are names and numbers of {kind}s") from error


def uid_of(name: str) -> int:
    """Of a user's name, or of a uid in digits. Raises KeyError."""
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def gid_of(name: str) -> int:
    """Of a group's name, or of a gid in digits. Raises KeyError."""
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
