"""Changing the limits of a job that runs, is paused, or waits.

All or nothing: the policy is asked first, as for a new job of that size; where the kernel
refuses one part, the parts that were written are put back. What comes out is what the
kernel says afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from workerd import admission
from workerd.auth import Peer, is_admin
from workerd.config import Totals
from workerd.errors import InvalidParams, PolicyExceeded, WrongState, as_worker_error
from workerd.job import IoLimit, Job, Limits, State
from workerd.limitsnapshot import LIFTABLE
from workerd.protocol import UpdateParams
from workerd.registry import Live, Registry
from workerd.schedule import choose, request

_OPEN = (State.RUNNING, State.PAUSED, State.QUEUED)


class Updater:
    def __init__(self, registry: Registry, changed: Callable[[], None]) -> None:
        """`changed` is called when a job takes less, or a waiting one asks for less."""
        self._registry = registry
        self._changed = changed
        self._one_at_a_time = asyncio.Lock()

    async def update(self, peer: Peer, params: UpdateParams) -> Job:
        """The job with its new limits. Raises WrongState, PolicyExceeded, InvalidParams,
        MissingController, NoSuchJob, AmbiguousId; then nothing has changed."""
        job = await self._registry.find(peer, params.id)
        _check(params)
        async with self._one_at_a_time:
            live = self._registry.get(job.id)
            state = job.state if live is None else live.job.state
            if live is None or state not in _OPEN:
                raise WrongState(f"job {job.id} is {state}: its limits cannot be changed", id=job.id, state=state)
            limits = merged(live.job.spec.limits, params.limits, params.lift)
            self._check_policy(peer, live.job, limits)
            await self._apply(live, params, limits)
        self._changed()
        return live.job

    async def _apply(self, live: Live, params: UpdateParams, limits: Limits) -> None:
        job, cgroup = live.job, live.cgroup
        fields: dict[str, object] = {}
        if cgroup is not None and (params.limits != Limits() or params.lift):
            lifted = [*params.lift, *(["swap"] if "memory" in params.lift and limits.swap is None else [])]
            try:
                held, warnings = await asyncio.to_thread(cgroup.update, params.limits, lifted, (job.gid, *job.groups))
            except OSError as error:
                raise as_worker_error(error) from error
            fields["effective"] = merged(job.effective or Limits(), held, lifted)
            fields["warnings"] = tuple(dict.fromkeys((*job.warnings, *warnings)))
        spec = msgspec.structs.replace(live.job.spec, limits=limits)
        if params.timeout is not None:
            spec = msgspec.structs.replace(spec, timeout=params.timeout or None)
            fields["timed_out"] = None if live.job.state is not State.STOPPING else live.job.timed_out
        live.job = msgspec.structs.replace(live.job, spec=spec, **fields)  # as it is by now
        if live.job.state is not State.FINISHED:
            await self._registry.record(live.job)

    def _check_policy(self, peer: Peer, job: Job, limits: Limits) -> None:
        policy = self._registry.config.policy
        if not is_admin(peer, policy):
            admission.check_maxima(limits, job.spec.max_output or admission.NO_CAP, policy.maxima)
        if job.state is State.QUEUED:
            return  # it waits for what it asks for now

        def asks(one: Job) -> Totals:
            who = Peer(one.uid, one.gid, one.groups, 0)
            return Totals() if is_admin(who, policy) else policy.totals(one.uid, who.gids)

        others = [request(live.job, asks(live.job)) for live in self._registry if live.job.live and live.job is not job]
        wish = request(msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, limits=limits)), asks(job))
        was = request(job, asks(job))
        if wish.memory <= was.memory and wish.cpus <= was.cpus and wish.pids <= was.pids:
            return  # less is never refused
        if (why := choose([wish], others, policy.machine, {}).waits.get(job.id)) is not None:
            raise PolicyExceeded(f"{why}; the job keeps what it has")


def merged(before: Limits, change: Limits, lift: tuple[str, ...] | list[str]) -> Limits:
    """`before` with what `change` says, and without what is lifted. Of an I/O limit on a
    device that both name, each rate is the newer one that is said. Pure."""
    said = {
        name: value
        for name in Limits.__struct_fields__
        if name != "io" and (value := getattr(change, name)) is not None
    }
    gone: dict[str, object] = {name: () if name == "io" else None for name in lift}
    kept = () if "io" in lift else before.io
    return msgspec.structs.replace(before, **{**gone, **said, "io": _merged_io(kept, change.io)})


def _merged_io(before: tuple[IoLimit, ...], change: tuple[IoLimit, ...]) -> tuple[IoLimit, ...]:
    found = {limit.device: limit for limit in before}
    for limit in change:
        old = found.get(limit.device, IoLimit(limit.device))
        said = {name: value for name, value in msgspec.structs.asdict(limit).items() if value is not None}
        found[limit.device] = msgspec.structs.replace(old, **said)
    return tuple(found.values())


def _check(params: UpdateParams) -> None:
    if params.limits == Limits() and not params.lift and params.timeout is None:
        raise InvalidParams("no limit is named: there is nothing to change", field="limits")
    for name in params.lift:
        if name not in LIFTABLE:
            raise InvalidParams(f"no such limit: {name!r}; there are {', '.join(sorted(LIFTABLE))}", field="lift")
        if getattr(params.limits, name):
            raise InvalidParams(f"{name} is both set and lifted", field="lift")
