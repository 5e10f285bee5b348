"""The verbs by name. Each is a module with its table, VERB, and main(Args) -> exit code;
it is imported when it is called, so that no verb pays for another."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Protocol

    from workerctl.options import Args, Verb

    class VerbModule(Protocol):
        VERB: Verb

        def main(self, args: Args) -> int: ...


VERBS = {
    "run": "start a command as a job",
    "ps": "list jobs",
    "status": "show all about a job",
    "top": "watch running jobs live",
    "stats": "show what running jobs use by the second",
    "events": "show what happens to jobs, as it happens",
    "inspect": "show all about jobs as JSON, or as a command of other programs",
    "explain": "say why a job ended so, and what to change",
    "out": "show a job's output",
    "replay": "show a job's output again, in the time it took",
    "attach": "go to the terminal of a job",
    "exec": "run one more command inside a job",
    "wait": "wait for jobs to finish",
    "stop": "stop jobs: ask, wait, then kill",
    "kill": "send a job a signal",
    "signal": "send a job a named signal",
    "pause": "freeze jobs where they are",
    "resume": "let paused jobs go on",
    "update": "change limits of jobs that run",
    "rerun": "run a job again, as a new one",
    "rename": "give a job another name",
    "rm": "forget finished jobs and their output",
    "prune": "forget many finished jobs at once",
    "metrics": "print figures for Prometheus",
    "info": "show what the daemon is and can do",
    "doctor": "say what this machine lacks, and what to do",
    "completion": "make the Tab key work in bash, zsh or fish",
    "dial-stdio": "connect to workerd, for -H elsewhere",
    "version": "show the versions of workerctl and workerd",
    "help": "explain a verb",
}
LOCAL = ("completion", "dial-stdio", "doctor", "help")
"""verbs that have nothing to do with another machine's workerd"""
ALIASES = {"r": "run", "s": "status", "o": "out", "k": "kill", "list": "ps", "ls": "ps", "logs": "out"}


def load(name: str) -> VerbModule:
    # Not importlib.import_module: importing importlib's own package takes longer than a verb.
    full_name = f"workerctl.verbs.{name.replace('-', '_')}"
    __import__(full_name)
    module: VerbModule = sys.modules[full_name]
    return module


def aliases_of(name: str) -> list[str]:
    return [alias for alias, verb in ALIASES.items() if verb == name]
