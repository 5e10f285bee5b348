"""What `run` takes beside the command, and the parameters of job.run that it makes.

    client.run(["make", "-j4"], mem="256M", cpus=2, timeout="10m", labels={"of": "nightly"})

As with `workerctl run`, on the machine that is meant: the working directory is the caller's, paths become absolute, and
of the environment a few variables are passed on, unless `env` gives the whole of it. The
umask is 022 unless given (reading one's own would change it for a moment, for all threads).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypedDict

import msgspec

from workerctl.api.quantity import Duration, Size, duration, size
from workerctl.machine import HERE, Machine
from workerctl.spec import ENV_PASSED
from workerd.errors import InvalidParams
from workerd.job import (
    After,
    IoLimit,
    JobSpec,
    Limits,
    Mount,
    MountKind,
    Net,
    OnTimeout,
    Publish,
    Restart,
    RestartPolicy,
)
from workerd.protocol import RunParams

Path = str | os.PathLike[str]
Words = Sequence[Path]
"""a command and its arguments"""


class HasId(Protocol):
    """A Job, a RunResult, a JobResult …"""

    @property
    def id(self) -> str: ...


JobRef = str | HasId
"""A job: its id, a unique beginning of that, its name, or what has the id"""


class StartOptions(TypedDict, total=False):
    """When and with what a job starts; these go with a JobSpec too."""

    env: Mapping[str, str] | None
    """the whole environment; None: PATH, HOME, USER, LANG and the like of the caller"""
    stdin: bytes | int | None
    """its standard input: bytes, or a descriptor, which stays the caller's"""
    after: Sequence[JobRef | After]
    """start when these jobs have ended"""
    at: datetime
    """not before this; local time where it has no zone"""
    delay: Duration
    """not before so long has passed"""
    queue: bool
    """wait where the totals are taken (True), or be refused with PolicyExceeded"""


class LimitOptions(TypedDict, total=False):
    """The limits; fields of workerd.job.Limits."""

    mem: Size
    swap: Size
    cpus: float
    cpu_weight: int
    cpuset: str
    pids: int
    io: Sequence[IoLimit]
    io_weight: int


class RunOptions(StartOptions, LimitOptions, total=False):
    """All that `run` takes for a command given as words; the fields of JobSpec and Limits
    say what they mean. Sizes are bytes or `"256M"`, durations seconds or `"10m"`."""

    name: str
    cwd: Path
    labels: Mapping[str, str]
    net: Net | str
    publish: Sequence[Publish]
    hostname: str
    rw: Sequence[Path]
    """paths that the job may write, beside `cwd`"""
    ro: Sequence[Path]
    mounts: Sequence[Mount]
    rootfs: Path
    read_only: bool
    umask: int
    user: str
    cap_add: Sequence[str]
    seccomp: bool
    max_output: Size
    stop_signal: int
    grace: Duration
    timeout: Duration
    """how long it may run"""
    cpu_time: Duration
    on_timeout: OnTimeout | str
    restart: Restart | RestartPolicy | str
    priority: int
    remove: bool
    """forget the job, with its output, moments after its end"""


_LIMITS = {"mem": "memory", "swap": "swap"} | {
    name: name for name in ("cpus", "cpu_weight", "cpuset", "pids", "io", "io_weight")
}
_SIZES = {"mem": 1, "swap": 0, "max_output": 1}
_DURATIONS = ("grace", "timeout", "cpu_time")
_ENUMS: dict[str, type[Net] | type[OnTimeout]] = {"net": Net, "on_timeout": OnTimeout}
_START = frozenset(StartOptions.__annotations__)
_KNOWN = frozenset(RunOptions.__annotations__)


def ref(job: JobRef) -> str:
    return job if isinstance(job, str) else job.id


def run_params(command: JobSpec | Words, options: Mapping[str, Any], machine: Machine = HERE) -> RunParams:
    """Raises InvalidParams for a value that cannot be meant, TypeError for what is no
    command or no option."""
    known = _START if isinstance(command, JobSpec) else _KNOWN
    if unknown := options.keys() - known:
        raise TypeError(f"run() takes no {', '.join(sorted(unknown))} here")
    made = command if isinstance(command, JobSpec) else _spec(command, options, machine)
    env = options.get("env")
    has_stdin = options.get("stdin") is not None
    return RunParams(
        made,
        passed_environment(machine) if env is None else {_text(key, "env"): _text(env[key], "env") for key in env},
        after=tuple(_after(job) for job in options.get("after", ())),
        at=_microseconds(options["at"]) if "at" in options else None,
        delay=duration(options["delay"], "delay") if "delay" in options else None,
        queue=options.get("queue", True),
        stdin=has_stdin,
        fds=int(has_stdin),
    )


def words(command: Words) -> tuple[str, ...]:
    if isinstance(command, (str, bytes)) or not isinstance(command, Sequence):
        raise TypeError(f"a command is a list of words; for a shell: ['sh', '-c', …], not {command!r}")
    if not command:
        raise InvalidParams("the command has no words", field="argv")
    return tuple(_text(word, "the command") for word in command)


def passed_environment(machine: Machine) -> dict[str, str]:
    """The variables that `workerctl run` passes on, too."""
    return {
        name: value
        for name, value in machine.environment().items()
        if (name in ENV_PASSED or name.startswith("LC_")) and _is_utf8(name + value)
    }


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spec(command: Words, options: Mapping[str, Any], machine: Machine) -> JobSpec:
    given = {name: _value(name, value) for name, value in options.items() if name not in _START and value is not None}
    limits = {_LIMITS[name]: given.pop(name) for name in _LIMITS if name in given}
    if "rootfs" in given:
        given["rootfs"] = _absolute(given["rootfs"], "rootfs", machine)
    inside = _as_written if "rootfs" in given else _absolute
    if "cwd" in given:
        given["cwd"] = inside(given["cwd"], "cwd", machine)
    mounts = [
        Mount(kind, inside(path, kind.value, machine))
        for kind in (MountKind.RW, MountKind.RO)
        for path in given.pop(kind.value, ())
    ]
    mounts += given.pop("mounts", ())
    given.setdefault("cwd", "/" if "rootfs" in given else machine.directory())
    if "publish" in given:
        given.setdefault("net", Net.BRIDGE)
    return JobSpec(words(command), limits=Limits(**limits), mounts=tuple(mounts), **given)


def _value(name: str, value: Any) -> Any:
    if name in _SIZES:
        return size(value, name, minimum=_SIZES[name])
    if name in _DURATIONS:
        return duration(value, name)
    if name in _ENUMS:
        return _choice(_ENUMS[name], value, name)
    if name == "restart":
        return _restart(value)
    if name in ("io", "publish", "cap_add"):
        return tuple(value)
    return dict(value) if name == "labels" else value


def _absolute(path: Path, name: str, machine: Machine) -> str:
    """As the caller means it; workerd follows no symbolic link on the way to a mount."""
    if not (given := _text(path, name)):
        raise InvalidParams(f"{name}: the path is empty", field=name)
    return machine.real(given)


def _as_written(path: Path, name: str, _: Machine) -> str:
    """A path in another root, which is not looked up from here."""
    given = _text(path, name)
    if not given.startswith("/"):
        raise InvalidParams(f"{name}={given!r}: with rootfs this path begins with /", field=name)
    return posixpath.normpath(given)


def _choice(kind: type[Net] | type[OnTimeout] | type[Restart], value: Any, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InvalidParams(f"{name}={value!r}: choose {', '.join(kind)}", field=name) from None


def _restart(given: Any) -> RestartPolicy:
    """`on-failure`, `always:5` …"""
    if isinstance(given, RestartPolicy):
        return given
    when, colon, limit = str(given).partition(":")
    if colon and not (limit.isascii() and limit.isdecimal() and len(limit) < 10 and int(limit)):
        raise InvalidParams(f"restart={given!r}: write WHEN:N with a number of tries", field="restart")
    return RestartPolicy(_choice(Restart, when, "restart"), int(limit) if colon else None)


def _after(job: JobRef | After) -> After:
    return job if isinstance(job, After) else After(ref(job))


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _text(given: Any, name: str) -> str:
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"{name}: give text, not {given!r}")
    if not _is_utf8(text):
        raise InvalidParams(f"{name}: not UTF-8, and workerd takes nothing else: {text!r}", field=name)
    return text


def update_limits(limits: Limits, more: Mapping[str, Any]) -> Limits:
    """With what is named changed."""
    if unknown := more.keys() - _LIMITS.keys():
        raise TypeError(f"update() takes no {', '.join(sorted(unknown))}")
    return msgspec.structs.replace(limits, **{_LIMITS[name]: _value(name, value) for name, value in more.items()})
