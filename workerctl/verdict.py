"""Why a job ended, or what holds it up: one verdict in words, and what to change. Pure,
over a job's plain JSON and the last lines of its stderr.

The kernel's own counts speak first (memory.events, cpu.stat, pids.events, PSI, by way of
the job's usage), then what workerd did, then the signal.
"""

from __future__ import annotations

from workerctl import commandline
from workerctl.asked import DEFAULT_OUTPUT, asked
from workerctl.signals import name as signal_name
from workerctl.words import brief, size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_THROTTLED = 0.2
"""share of its time from which on being held back is worth a word"""
_ITSELF = {
    4: "it ran an instruction that this CPU does not have",
    6: "it gave up by itself (abort: a failed assertion, or memory that it found corrupted)",
    7: "it touched memory that is not there any more (a mapped file that shrank, say)",
    8: "it divided by zero, or the like",
    11: "it touched memory that is not its own (a bug in it)",
    13: "it wrote to a pipe that nobody reads",
    24: "it used up the CPU time that its own resource limit (ulimit -t) allows",
    25: "it wrote a larger file than its own resource limit (ulimit -f) allows",
    31: "it made a system call that jobs may not make",
}


class Verdict:
    """`what` is one sentence; `facts` are what it rests on; `advice` is what to do, and
    `command` the whole command line for that. `kind` is for programs."""

    __slots__ = ("advice", "command", "facts", "kind", "what")

    def __init__(self, kind: str, what: str, advice: str = "", command: str = "") -> None:
        self.kind = kind
        self.what = what
        self.facts: list[str] = []
        self.advice = advice
        self.command = command

    def as_json(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) or (None if name in ("advice", "command") else getattr(self, name))
            for name in self.__slots__
        }


def explain(
    job: dict[str, Any], now: int, stderr: Sequence[str] = (), default_output: int = DEFAULT_OUTPUT
) -> Verdict:
    """`now` is in microseconds since the epoch; `default_output` is left out of the command."""
    job = {**job, "spec": asked(job["spec"], default_output)}
    verdict = _ended(job) if job["state"] == "finished" else _live(job, now)
    verdict.facts += _facts(job, now)
    verdict.facts += [f"stderr: {line}" for line in stderr]
    return verdict


def _ended(job: dict[str, Any]) -> Verdict:
    reason = job.get("reason")
    kinds = {
        "oom": _oom,
        "timeout": _timeout,
        "stopped": _stopped,
        "start-failed": _never_ran,
        "lost": _lost,
        "signaled": _signaled,
        "exited": _exited,
    }
    make = kinds.get(str(reason))
    return (
        make(job) if make else Verdict(str(reason), f"it never started: {job.get('detail') or 'its turn did not come'}")
    )


def _oom(job: dict[str, Any]) -> Verdict:
    limit, used = _limit(job, "memory"), _used(job)
    if limit and used.get("memory_max_hits", 1):
        peak = f", and it used {size(used['memory_peak'])} at most" if used.get("memory_peak") else ""
        what = f"the kernel killed it: it needed more memory than its limit of {size(limit)}{peak}"
        return _other(job, "out-of-memory", what, "give it more memory", memory=_roomier(limit))
    what = "the kernel killed it: memory ran out, though not by a limit of its own (its user's total, or the machine's)"
    return Verdict("machine-out-of-memory", what, "wait for other jobs to end, or have it use less")


def _timeout(job: dict[str, Any]) -> Verdict:
    field = "cpu_time" if job.get("timed_out") == "cpu-time" else "timeout"
    given = job["spec"].get(field) or 0
    what = f"workerd stopped it: its {'CPU time' if field == 'cpu_time' else 'time'} of {brief(given)} was over"
    share = (_used(job).get("throttled_usec") or 0) / (job.get("duration") or given or 1)
    if field == "timeout" and (cpus := _limit(job, "cpus")) and share >= _THROTTLED:
        what += f", of which its limit of {cpus:g} CPUs held it back {min(share, 9.99):.0%}, all threads added"
        limits = {"limits": {**(job["spec"].get("limits") or {}), "cpus": cpus * 2}}
        return _changed(job, "timeout-throttled", what, "give it more CPU time", limits)
    return _changed(job, "timeout", what, "give it more time", {field: given * 2})


def _stopped(job: dict[str, Any]) -> Verdict:
    what = "it was stopped on request (workerctl stop)"
    if job.get("signal") != 9:
        return Verdict("stopped", f"{what}, and {_how(job)}")
    grace = job["spec"].get("grace", 10_000_000)
    what += (
        f": it did not end within {brief(grace)} of {signal_name(job['spec'].get('stop_signal', 15))}, and was killed"
    )
    advice = "if it needs longer to end in order, give it more grace; else have it heed the signal"
    return _changed(job, "stopped-hard", what, advice, {"grace": max(grace, 1_000_000) * 3})


def _never_ran(job: dict[str, Any]) -> Verdict:
    error = job.get("start_error") or {}
    advice = {
        "exec": "look at the spelling, at PATH, and whether it is executable and made for this machine",
        "chdir": "choose another directory: --workdir DIR",
        "init": "run it again: workerd was stopped just then",
    }.get(str(error.get("step")), "")
    verdict = Verdict(
        "start-failed", f"its command never ran: {error.get('message', 'the reason is not known')}", advice
    )
    if error.get("step") == "init":
        verdict.command = f"workerctl rerun {job['id']}"
    return verdict


def _lost(job: dict[str, Any]) -> Verdict:
    if job.get("detail") == "reboot":
        what = "the machine went down while it ran; how far it came is not known, its output is kept"
    else:
        what = f"how it ended is not known: {job.get('detail')}"
    return Verdict("lost", what, "run it again", f"workerctl rerun {job['id']}")


def _signaled(job: dict[str, Any]) -> Verdict:
    number = job["signal"]
    if number in _ITSELF and not _asked_for(job):
        return Verdict("crashed", f"{signal_name(number)} ended it: {_ITSELF[number]}")
    what = f"{signal_name(number)} ended it, sent by {_sender(job)}"
    if number == 9 and not _asked_for(job):
        what += "; not by a limit: the kernel counted no kill for want of memory"
    return Verdict("signaled", what)


def _asked_for(job: dict[str, Any]) -> bool:
    """Whether the signal that ended it is one that workerd was told to send."""
    return bool((job.get("signaled") or {}).get("number") == job.get("signal"))


def _sender(job: dict[str, Any]) -> str:
    """Who sent the signal that ended it, as far as that can be known."""
    reason, number = job.get("reason"), job["signal"]
    if reason in ("stopped", "timeout"):
        after_grace = number == 9 and job["spec"].get("stop_signal", 15) != 9
        return "workerd, after the grace" if after_grace else "workerd"
    if reason == "oom":
        return "the kernel, for want of memory"
    if _asked_for(job):
        from workerctl.accounts import user_name

        return f"workerctl kill, by {user_name(job['signaled']['uid'])}"
    if number in _ITSELF:
        return "the command itself" if number == 6 else "the kernel, for what the command did"
    return "a process of the job, or from outside by its user or root; not by workerctl"


def _exited(job: dict[str, Any]) -> Verdict:
    code = job.get("exit_code")
    used = _used(job)
    if code == 0:
        return Verdict("success", "it ran to its end and reported success")
    what = f"it ended by itself and reported failure: exit code {code}"
    if used.get("oom_kills"):
        limit = _limit(job, "memory")
        what += f", after the kernel had killed {used['oom_kills']} of its processes for want of memory"
        if limit:
            return _other(job, "partly-out-of-memory", what, "give it more memory", memory=_roomier(limit))
    if used.get("pids_max_hits") and (pids := _limit(job, "pids")):
        what += f", and it could not start processes {used['pids_max_hits']} times: its limit is {pids}"
        return _other(job, "out-of-processes", what, "allow it more processes", pids=pids * 2)
    hints = {
        126: "as a shell does for a command that cannot be executed",
        127: "as a shell does for a command not found",
    }
    if code in hints:
        what += f", {hints[code]}"
    elif code is not None and 128 < code <= 192:
        what += f", as a shell does when {signal_name(code - 128)} ended its command"
    return Verdict("failure", what, "see what it wrote", f"workerctl out --stderr {job['id']}")


def _live(job: dict[str, Any], now: int) -> Verdict:
    state = job["state"]
    if state == "queued":
        return Verdict("waiting", f"it waits: {job.get('waits_for') or 'for its turn'}")
    if state == "paused":
        return Verdict(
            "paused",
            "it is paused: it holds its memory and uses no CPU",
            "let it go on",
            f"workerctl resume {job['id']}",
        )
    if state == "stopping":
        return Verdict("stopping", "it was asked to stop and is not gone yet; when its grace is over it is killed")
    if state == "starting":
        return Verdict("starting", "its command is about to run")
    return _running(job, now)


def _running(job: dict[str, Any], now: int) -> Verdict:
    used, ran = _used(job), max(1, now - (job.get("started") or now))
    update = f"workerctl update {job['id']}"
    cpus, memory, pids = (_limit(job, name) for name in ("cpus", "memory", "pids"))
    share = (used.get("throttled_usec") or 0) / ran
    if cpus and share >= _THROTTLED:
        what = (
            f"it runs, held back by its limit of {cpus:g} CPUs: {min(share, 9.99):.0%} of its time, all threads added"
        )
        return Verdict("throttled", what, "give it more CPU time", f"{update} --cpus {cpus * 2:g}")
    if memory and (used.get("memory_pressure_usec") or 0) / ran >= _THROTTLED:
        what = f"it runs, and waits for memory much of the time: it is at its limit of {size(memory)}"
        return Verdict(
            "short-of-memory", what, "give it more memory", f"{update} --mem {commandline.size(_roomier(memory))}"
        )
    if pids and used.get("pids_max_hits"):
        what = f"it runs, and could not start processes {used['pids_max_hits']} times: its limit is {pids}"
        return Verdict("out-of-processes", what, "allow it more processes", f"{update} --pids {pids * 2}")
    if (used.get("io_pressure_usec") or 0) / ran >= _THROTTLED:
        return Verdict("slow-disk", "it runs, and waits for disks much of the time")
    return Verdict("running", "it runs, and nothing holds it up")


def _facts(job: dict[str, Any], now: int) -> list[str]:
    from workerctl.words import usage

    facts = []
    if job.get("started"):
        ran = job.get("duration") or max(0, (job.get("finished") or now) - job["started"])
        facts.append(f"ran for {brief(ran)}")
    if job["state"] == "finished" and job.get("signal") is not None:
        facts.append(f"signal: {signal_name(job['signal'])}, sent by {_sender(job)}")
    return (
        facts
        + [f"{name}: {text}" for name, text in usage(job)]
        + [f"warning: {text}" for text in job.get("warnings") or ()]
    )


def _used(job: dict[str, Any]) -> dict[str, Any]:
    return job.get("usage") or {}


def _limit(job: dict[str, Any], name: str) -> Any:
    """The one in force."""
    effective = job.get("effective")
    return (effective if effective is not None else job["spec"].get("limits") or {}).get(name)


def _roomier(limit: int) -> int:
    """The next power of two that is at least half as much again."""
    return 1 << (limit + limit // 2 - 1).bit_length()


def _how(job: dict[str, Any]) -> str:
    if job.get("signal") is not None:
        return f"ended by {signal_name(job['signal'])}"
    return "never started" if job.get("exit_code") is None else f"ended with exit code {job['exit_code']}"


def _other(job: dict[str, Any], kind: str, what: str, advice: str, **limits: int) -> Verdict:
    return _changed(job, kind, what, advice, {"limits": {**(job["spec"].get("limits") or {}), **limits}})


def _changed(job: dict[str, Any], kind: str, what: str, advice: str, changes: dict[str, Any]) -> Verdict:
    return Verdict(kind, what, advice, commandline.command_line({**job["spec"], **changes}))
