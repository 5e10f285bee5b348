"""Whether a job is let in, and as what: the policy's defaults, maxima and totals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from workerd import sandbox
from workerd.auth import Peer, is_admin, may_use_net
from workerd.config import PerJob, Policy, Totals
from workerd.errors import InvalidParams, NotPermitted, PolicyExceeded
from workerd.job import IoLimit, Job, JobSpec, Limits, Mount, MountKind, Net, State
from workerd.netconfig import format_ports, may_publish
from workerd.totals import Stored, check_output, default_output
from workerd.units import format_size

NO_CAP = 2**62
"""bytes of output kept where the policy sets no bound"""
_NOTHING_STORED = Stored()
_WEIGHTS = ("cpu_weight", "io_weight")
_DEFAULT_WEIGHT = 100
"""what the kernel gives who asks for none (cgroup-v2.rst)"""
_RATES = ("read_bps", "write_bps", "read_iops", "write_iops")


def admit(
    spec: JobSpec,
    env: Mapping[str, str],
    peer: Peer,
    policy: Policy,
    unfinished: Iterable[Job],
    *,
    nets: frozenset[Net],
    stored: Stored = _NOTHING_STORED,
) -> JobSpec:
    """The spec with the policy's defaults filled in. `unfinished` are all jobs that are
    not finished, gone through where there is a total to hold; `nets` what this daemon
    can provide; `stored` matters where the policy has a total on output. Whether there is room for it now
    is not asked here (workerd.schedule).

    Raises InvalidParams, NotPermitted, PolicyExceeded.
    """
    _check_text(spec, env)
    _check_view(spec)
    _check_net(spec, peer, policy, nets)
    limits = _with_defaults(spec.limits, policy.defaults.limits)
    bounds = (policy.machine, totals_of(peer, policy))
    max_output = output_of_a_job(spec.max_output, peer, policy)
    if not is_admin(peer, policy):
        check_maxima(limits, max_output, policy.maxima)
        limits = _within_io_maxima(limits, policy.maxima.limits.io)
    counted = any(total is not None for totals in bounds for total in (totals.jobs, totals.output))
    others = list(unfinished) if counted else []
    owners = [job.uid for job in others if job.state is not State.FINISHED]  # told, though it may not be committed
    _check_jobs(len(owners), policy.machine, "the machine's")
    if not is_admin(peer, policy):
        _check_jobs(owners.count(peer.uid), policy.totals(peer.uid, peer.gids), "your")
    _check_stored(max_output, peer, policy, others, stored)
    return msgspec.structs.replace(spec, limits=limits, max_output=max_output)


def output_of_a_job(wanted: int | None, peer: Peer, policy: Policy) -> int:
    """How much of its output is kept, in bytes."""
    bounds = (policy.machine, totals_of(peer, policy))
    return wanted or default_output(policy.defaults.max_output, bounds) or NO_CAP


def totals_of(peer: Peer, policy: Policy) -> Totals:
    """What this peer's jobs may have together; an admin's, anything."""
    return Totals() if is_admin(peer, policy) else policy.totals(peer.uid, peer.gids)


def _check_stored(max_output: int, peer: Peer, policy: Policy, unfinished: list[Job], stored: Stored) -> None:
    check_output(max_output, policy.machine.output, unfinished, stored.machine, "the machine's")
    mine = [job for job in unfinished if job.uid == peer.uid]
    check_output(max_output, totals_of(peer, policy).output, mine, stored.user, "your")


def check_rank(spec: JobSpec, peer: Peer, policy: Policy) -> None:
    """Raises NotPermitted where the job asks for what only admins may have. To be called
    before anything is looked up for it."""
    if is_admin(peer, policy):
        return
    asked = {"user": spec.user is not None, "cap_add": bool(spec.cap_add), "seccomp": not spec.seccomp}
    options = {"user": "--user", "cap_add": "--cap-add", "seccomp": "--seccomp-profile off"}
    for field, wanted in asked.items():
        if wanted:
            raise NotPermitted(f"{options[field]} is for admins only (root, and whom workerd.toml names)", field=field)


def check_capabilities(spec: JobSpec, uid: int) -> None:
    """Raises InvalidParams. `uid` is whom the job will run as."""
    for name in spec.cap_add:
        try:
            sandbox.capability(name)
        except KeyError as error:
            raise InvalidParams(f"no such capability: {name!r}; see capabilities(7)", field="cap_add") from error
    if spec.cap_add and uid != 0:
        raise InvalidParams(
            f"--cap-add needs a job of root's, this is uid {uid}'s: other users' programs lose every capability "
            "when they start; add --user root",
            field="cap_add",
        )


def _check_text(spec: JobSpec, env: Mapping[str, str]) -> None:
    if not spec.argv[0]:
        raise InvalidParams("the command is empty: name a program to run", field="argv")
    texts = {"argv": spec.argv, "cwd": (spec.cwd,), "rootfs": (spec.rootfs or "",)}
    for field, values in texts.items():
        if any("\0" in value for value in values):
            raise InvalidParams(f"{field} has a NUL character, which no program can be given", field=field)
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidParams(
                f"environment variable {name!r}: the name must not be empty nor hold '=', neither may hold NUL",
                field="env",
            )


def _check_view(spec: JobSpec) -> None:
    for field, path in (("cwd", spec.cwd), ("rootfs", spec.rootfs)):
        if path is not None and not path.startswith("/"):
            raise InvalidParams(f"{field} must be an absolute path, not {path!r}", field=field)
    for mount in spec.mounts:
        _check_mount(mount)


def _check_mount(mount: Mount) -> None:
    bind = mount.kind in (MountKind.BIND, MountKind.BIND_RO)
    paths = [mount.target, *([mount.source] if mount.source is not None else [])]
    if bind != (mount.source is not None):
        raise InvalidParams(f"a mount of kind {mount.kind} {'needs a' if bind else 'takes no'} source", field="mounts")
    for path in paths:
        parts = path.split("/")
        if not path.startswith("/") or "\0" in path or ".." in parts or "." in parts:
            raise InvalidParams(f"{path!r} is not an absolute path without . and ..", field="mounts")
    top = "/" + mount.target.strip("/").split("/")[0]
    if top in ("/", "/proc", "/sys") or (top == "/dev" and not mount.target.startswith("/dev/shm/")):  # noqa: S108
        raise InvalidParams(f"nothing can be mounted over {mount.target}", field="mounts")


def _check_net(spec: JobSpec, peer: Peer, policy: Policy, nets: frozenset[Net]) -> None:
    if not may_use_net(peer, spec.net, policy):
        allowed = ", ".join(sorted(policy.nets))
        raise NotPermitted(f"network mode {spec.net} is not allowed to you; allowed: {allowed}", field="net")
    if spec.net not in nets:
        raise InvalidParams(f"this workerd has no network mode {spec.net}", field="net")
    if spec.publish and spec.net is not Net.BRIDGE:
        raise InvalidParams("to publish ports a job needs a network of its own: --net bridge", field="publish")
    for port in spec.publish:
        if not is_admin(peer, policy) and not may_publish(port.host, policy.network.publish):
            allowed = format_ports(policy.network.publish)
            raise NotPermitted(f"host port {port.host} is not yours to publish; allowed: {allowed}", field="publish")


def _with_defaults(limits: Limits, defaults: Limits) -> Limits:
    said = {name: value for name, value in msgspec.structs.asdict(limits).items() if value not in (None, ())}
    return msgspec.structs.replace(defaults, **said)


def check_maxima(limits: Limits, max_output: int, maxima: PerJob) -> None:
    """Raises PolicyExceeded where one job may not have so much."""
    asked = msgspec.structs.asdict(limits)
    if limits.memory is not None and limits.swap is None:
        asked["swap"] = 0  # as it will be written
    for name, most in msgspec.structs.asdict(maxima.limits).items():
        if most is None or name in ("cpuset", "io"):
            continue
        value = _DEFAULT_WEIGHT if asked[name] is None and name in _WEIGHTS else asked[name]
        if value is None:
            raise PolicyExceeded(f"the policy wants a limit on {name}: at most {_shown(name, most)}", field=name)
        if value > most:
            raise PolicyExceeded(
                f"{name} {_shown(name, value)} is over the policy's maximum of {_shown(name, most)}", field=name
            )
    if maxima.max_output is not None and max_output > maxima.max_output:
        raise PolicyExceeded(
            f"max-output {format_size(max_output)} is over the policy's maximum of {format_size(maxima.max_output)}",
            field="max_output",
        )
    _check_io(limits.io, maxima.limits.io)


def _check_io(limits: tuple[IoLimit, ...], maxima: tuple[IoLimit, ...]) -> None:
    for limit in limits:
        for rate in _RATES:
            value, most = getattr(limit, rate), _least(getattr(each, rate) for each in maxima)
            if value is not None and most is not None and value > most:
                message = f"io {rate} {format_size(value)} is over the policy's maximum of {format_size(most)}"
                raise PolicyExceeded(message, field="io")


def _within_io_maxima(limits: Limits, maxima: tuple[IoLimit, ...]) -> Limits:
    """Every disk is held to the maximum, and those that the job names to what it says:
    of two rates for one disk the later is written."""
    return msgspec.structs.replace(limits, io=(*maxima, *limits.io)) if maxima else limits


def _least(values: Iterable[int | None]) -> int | None:
    return min([value for value in values if value is not None], default=None)


def _check_jobs(there: int, totals: Totals, whose: str) -> None:
    if totals.jobs is not None and there >= totals.jobs:
        raise PolicyExceeded(f"{whose} total of {totals.jobs} jobs is taken; wait for one to end", field="jobs")


def _shown(name: str, value: Any) -> str:
    return format_size(value) if name in ("memory", "swap") else f"{value:g}"
