"""Every error that this project raises, named for its condition.

    WorkerError
    ├── RequestError             the request itself is wrong
    │   ├── ParseError           not JSON                            -32700
    │   ├── InvalidRequest       not a JSON-RPC request              -32600
    │   ├── MethodNotFound       no such method                      -32601
    │   └── InvalidParams        a parameter is wrong                -32602
    ├── InternalError            our fault; the log has the traceback -32603
    ├── JobError
    │   ├── NoSuchJob            unknown, or somebody else's         -32000
    │   ├── AmbiguousId          a prefix of more than one id        -32001
    │   ├── WrongState           the job's state forbids it          -32005
    │   ├── NameTaken            a live job has this name            -32009
    │   └── StartFailed          the command never ran               -32006
    │       ├── CommandNotFound
    │       └── CannotExecute
    ├── NotPermitted             the policy or the caller's rank     -32002
    ├── PolicyExceeded           over a total or a maximum           -32003
    ├── MissingController        the host cannot hold this limit     -32004
    ├── Exhausted                disk, fds, pids … have run out      -32007
    ├── Unavailable              the daemon is stopping              -32008
    ├── ConfigError              the configuration file, with its line
    └── ConnectionFailed         seen by a client only
        ├── NotRunning           nobody listens on the socket
        ├── SocketForbidden      the caller may not open the socket
        └── HostUnreachable      ssh to another machine failed, or was lost

`kind` is the stable, machine-readable name of a condition; `data` goes on the
wire beside it. `OSError` stays `OSError` until `workerd.server` answers, or until it is a job's.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class WorkerError(Exception):
    """Base of all; `str()` is a sentence for a person that says what to do."""

    code: ClassVar[int] = -32603
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, **data: str | int | None) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, str | int | None] = data


class RequestError(WorkerError):
    code = -32600
    kind = "invalid-request"


class ParseError(RequestError):
    code = -32700
    kind = "parse-error"


class InvalidRequest(RequestError):
    pass


class MethodNotFound(RequestError):
    code = -32601
    kind = "method-not-found"


class InvalidParams(RequestError):
    code = -32602
    kind = "invalid-params"


class InternalError(WorkerError):
    kind = "internal-error"


class JobError(WorkerError):
    code = -32000
    kind = "job-error"


class NoSuchJob(JobError):
    kind = "no-such-job"


class AmbiguousId(JobError):
    code = -32001
    kind = "ambiguous-id"


class NotPermitted(WorkerError):
    code = -32002
    kind = "not-permitted"


class PolicyExceeded(WorkerError):
    code = -32003
    kind = "policy-exceeded"


class MissingController(WorkerError):
    code = -32004
    kind = "missing-controller"


class WrongState(JobError):
    code = -32005
    kind = "wrong-state"


class NameTaken(JobError):
    """data: id of the job that has it, name."""

    code = -32009
    kind = "name-taken"


class StartFailed(JobError):
    """data: id, step (as worker-init names it), errno (0 where there is none)."""

    code = -32006
    kind = "start-failed"


class CommandNotFound(StartFailed):
    kind = "command-not-found"


class CannotExecute(StartFailed):
    kind = "cannot-execute"


class Exhausted(WorkerError):
    code = -32007
    kind = "exhausted"


class Unavailable(WorkerError):
    code = -32008
    kind = "unavailable"


class ConfigError(WorkerError):
    """data: path, line (1-based; 0 where the whole file is meant)."""

    kind = "config-error"


class ConnectionFailed(WorkerError):
    kind = "connection-failed"


class NotRunning(ConnectionFailed):
    kind = "not-running"


class SocketForbidden(ConnectionFailed):
    kind = "socket-forbidden"


class HostUnreachable(ConnectionFailed):
    kind = "host-unreachable"


def _tree(base: type[WorkerError]) -> list[type[WorkerError]]:
    found = [base]
    for child in base.__subclasses__():
        found += _tree(child)
    return found


BY_KIND: dict[str, type[WorkerError]] = {error.kind: error for error in reversed(_tree(WorkerError))}
"""From the `data.kind` of an answer back to the error that it stands for."""

_SCARCE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def as_worker_error(error: OSError) -> WorkerError:
    """What an OSError of our own files means to a caller."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in _SCARCE:
        return Exhausted(f"the machine has run out of something: {what}", errno=error.errno)
    return InternalError(f"cannot set up the job: {what}", errno=error.errno)
