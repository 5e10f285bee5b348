"""The named steps of a job's start, stop, end and removal at which a daemon under test
kills itself. They are patched in from here: the product has no code for it.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from workerd import evidence, exitrecord, jobfiles, jobrecord, launcher, outcome, startstatus
from workerd.cgroup import CgroupTree
from workerd.job import Job, State
from workerd.jobcgroup import JobCgroup
from workerd.launcher import Launcher
from workerd.registry import Registry
from workerd.startgate import Gate
from workerd.stopping import Stopper
from workerd.store import Store
from workerd.supervisor import Supervisor


class Step(NamedTuple):
    owner: Any
    name: str
    state: State | None = None
    """counts only where it is done with a job in this state"""


START = {
    "store.insert": Step(Store, "insert"),
    "jobrecord.admit": Step(jobrecord, "admit"),
    "cgroup.create": Step(CgroupTree, "create"),
    "cgroup.apply": Step(JobCgroup, "apply"),
    "output.open": Step(jobfiles, "open_output"),
    "runtime.create": Step(jobfiles, "create_runtime"),
    "exitrecord.allocate": Step(exitrecord, "allocate"),
    "spawn": Step(Launcher, "_begin"),
    "go": Step(Gate, "open"),
    "parse": Step(startstatus, "parse"),
    "watch": Step(Supervisor, "watch"),
    "running.update": Step(Store, "update", State.RUNNING),
}
STOP = {
    "stop.update": Step(Store, "update", State.STOPPING),
    "stop.signal": Step(jobfiles.JobFiles, "signal"),
    "stop.kill-all": Step(Stopper, "_kill_all"),
    "stop.carry-out": Step(Stopper, "_carry_out"),
}
FINISH = {
    "account": Step(evidence, "take_account"),
    "reap": Step(launcher, "reap"),
    "exitrecord.read": Step(exitrecord, "read"),
    "judge": Step(outcome, "judge"),
    "end.update": Step(Store, "update", State.FINISHED),
    "jobrecord.finish": Step(jobrecord, "finish"),
    "release": Step(Registry, "release"),
    "cgroup.remove": Step(JobCgroup, "remove"),
    "runtime.remove": Step(jobfiles.JobFiles, "remove_runtime"),
}
ALL = {**START, **STOP, **FINISH}


def names() -> list[str]:
    """`before:STEP` and `after:STEP` of each."""
    return [f"{when}:{step}" for step in ALL for when in ("before", "after")]


def arm(text: str) -> None:
    """`before:STEP:N`: SIGKILL to ourselves at the Nth time that the step is reached."""
    when, step, count = text.split(":")
    owner, name, state = ALL[step]
    setattr(owner, name, _killing(getattr(owner, name), when, int(count), state))


def _killing(function: Callable[..., Any], when: str, count: int, state: State | None) -> Callable[..., Any]:
    reached = 0

    @functools.wraps(function)
    def step(*arguments: Any, **named: Any) -> Any:
        nonlocal reached
        if state is not None and all(each.state is not state for each in arguments if isinstance(each, Job)):
            return function(*arguments, **named)
        reached += 1
        if reached == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if reached == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return step
