"""`update`: other limits for a job that runs, is paused, or waits."""

from __future__ import annotations

from workerctl.each import each_job
from workerctl.limits import duration_of, limits
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import SHAPES

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

FIELDS = {
    "mem": "memory",
    "swap": "swap",
    "cpus": "cpus",
    "cpu-weight": "cpu_weight",
    "cpuset": "cpuset",
    "pids": "pids",
    "io-weight": "io_weight",
}
NONE = "none"

VERB = Verb(
    "update",
    "[OPTIONS] ID…",
    "Change limits of jobs that run, are paused, or wait.",
    text="""
        What is not named stays as it is; `none` lifts a limit. All of it is done, or nothing:
        what the policy or the kernel refuses in part changes nothing. Memory cannot be set
        below what the job uses and the kernel cannot take back.
    """,
    groups={
        "Limits (sizes as 256M, 1.5G, or none)": [
            Option("-m --mem --memory", "memory", "SIZE"),
            Option("--swap", "swap", "SIZE"),
            Option("--cpus", "CPU time, in CPUs", "N"),
            Option("--cpu-weight", "share of the CPU when it is scarce, 1-10000", "N"),
            Option("--cpuset", "run on these CPUs only", "LIST"),
            Option("--pids", "processes and threads", "N"),
            Option("--io-read-bps", "bytes read a second", "[DISK:]RATE", many=True),
            Option("--io-write-bps", "bytes written a second", "[DISK:]RATE", many=True),
            Option("--io-read-iops", "reads a second", "[DISK:]RATE", many=True),
            Option("--io-write-iops", "writes a second", "[DISK:]RATE", many=True),
            Option("--no-io", "lift all limits on bytes and accesses a second"),
            Option("--io-weight", "share of the disks when they are busy, 1-10000", "N"),
            Option("--timeout", "the whole time that it may run, counted from its start", "TIME"),
        ],
        "Options": SHAPES,
    },
    examples=[
        ("update --mem 2G build", "it may use more from now on"),
        ("update --cpus none --timeout 2h build", "all CPUs, two hours in all"),
    ],
)


def main(args: Args) -> int:
    params: dict[str, Any] = {}
    lift = [field for option, field in FIELDS.items() if args.text(option) == NONE]
    lift += ["io"] if args.has("no-io") else []
    timeout = args.text("timeout")
    if timeout is not None:
        params["timeout"] = 0 if timeout == NONE else duration_of(timeout, "--timeout")
    for option in FIELDS:
        if args.text(option) == NONE:
            del args.given[option]
    if lift:
        params["lift"] = lift
    if found := limits(args):
        params["limits"] = found
    if args.words and not params:
        raise UsageError("update what? Name a limit, as: workerctl update --mem 2G ID")
    return each_job(args, "job.update", params)
