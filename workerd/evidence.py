"""What there is to judge a job's end by (workerd.outcome): what its cgroup and its output's index
say, and the exit record of its PID 1."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from workerd import exitrecord, output
from workerd.job import Usage
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles


class Account(NamedTuple):
    """What a dead job's cgroup says of it."""

    usage: Usage | None
    oom_killed: bool


class Evidence(NamedTuple):
    account: Account
    record: exitrecord.Record | None
    output: dict[str, int]
    """a job's fields on it"""

    @property
    def is_final(self) -> bool:
        """Whether PID 1 has said what became of the command."""
        return isinstance(self.record, exitrecord.Ended)


def take_account(cgroup: JobCgroup | None) -> Account:
    """Whoever is still in it (a PID 1 that ends) has left when the end is told. Raises OSError."""
    if cgroup is None:
        return Account(None, oom_killed=False)
    usage = cgroup.usage()
    if usage.pids_current:
        usage = msgspec.structs.replace(usage, pids_current=0)
    return Account(usage, oom_killed=cgroup.oom_killed())


def gather(cgroup: JobCgroup | None, files: JobFiles, account: Account | None = None) -> Evidence:
    """`account` is what the cgroup said, where that is gone already. Raises OSError."""
    said = account or take_account(cgroup)
    fields = output.fields_of(output.extent_of(files.log, files.index))
    return Evidence(said, exitrecord.read(files.exit), fields)
