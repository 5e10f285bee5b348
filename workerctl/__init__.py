"""workerctl: the command line of workerd, and its Python API.

    from workerctl import AsyncClient, Client, CommandExecutor

`Client` is blocking, `AsyncClient` for asyncio, and `CommandExecutor` gives futures, as
concurrent.futures does. What they take and give is here as well; errors are in `errors`.

Nothing is imported before it is asked for: the command line starts through here.
"""

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.aio import AsyncClient
    from workerctl.api.asynccommand import AsyncCommand
    from workerctl.api.command import Command
    from workerctl.api.pieces import Piece
    from workerctl.api.result import CommandFailed, JobResult
    from workerctl.client import Client
    from workerctl.executor import CommandExecutor, JobFuture
    from workerd import errors
    from workerd.events import Event, EventKind
    from workerd.job import (
        After,
        IoLimit,
        Job,
        JobSpec,
        Limits,
        Mount,
        MountKind,
        Net,
        Outcome,
        Publish,
        Reason,
        Restart,
        RestartPolicy,
        State,
        Usage,
    )

__all__ = [
    "After",
    "AsyncClient",
    "AsyncCommand",
    "Client",
    "Command",
    "CommandExecutor",
    "CommandFailed",
    "Event",
    "EventKind",
    "IoLimit",
    "Job",
    "JobFuture",
    "JobResult",
    "JobSpec",
    "Limits",
    "Mount",
    "MountKind",
    "Net",
    "Outcome",
    "Piece",
    "Publish",
    "Reason",
    "Restart",
    "RestartPolicy",
    "State",
    "Usage",
    "errors",
]

_PLACES = {
    "AsyncClient": "workerctl.aio",
    "AsyncCommand": "workerctl.api.asynccommand",
    "Client": "workerctl.client",
    "Command": "workerctl.api.command",
    "CommandExecutor": "workerctl.executor",
    "CommandFailed": "workerctl.api.result",
    "Event": "workerd.events",
    "EventKind": "workerd.events",
    "JobFuture": "workerctl.executor",
    "JobResult": "workerctl.api.result",
    "Piece": "workerctl.api.pieces",
}
"""What is not listed is in workerd.job."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "errors":
        return import_module("workerd.errors")
    return getattr(import_module(_PLACES.get(name, "workerd.job")), name)
