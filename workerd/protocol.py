"""The RPC's structs, its method table and its framing. No I/O.

JSON-RPC 2.0, one object (or batch) per line, UTF-8. A method's parameters and
result are msgspec Structs; METHODS names them all, and the reference page is
made from it. File descriptors ride on the message that speaks of them: `fds`
in its params or result says how many are its own, in order.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from workerd import errors
from workerd.events import Event
from workerd.job import After, Job, JobName, JobSpec, LabelKey, Limits, Reason, State, Text

MAX_REQUEST = 1 << 20
"""bytes in one line, its newline included"""
MAX_BATCH = 1000
"""requests in one batch; a megabyte of `1,1,1` would be 400,000 answers of an error each"""
MAX_FDS = 16
"""descriptors that may ride on one message"""
DEFAULT_SOCKET = "/run/workerd/workerd.sock"

JobRef = Annotated[str, Meta(min_length=1, max_length=64)]
"""an id, a unique prefix of one, or a name"""
Micros = Annotated[int, Meta(ge=0, le=2**62)]
"""microseconds"""
Signal = Annotated[int, Meta(ge=1, le=64)]
"""a signal's number"""
Fds = Annotated[int, Meta(ge=0, le=MAX_FDS)]


class Params(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all parameters."""


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    """A terminal's size in characters."""

    rows: Annotated[int, Meta(ge=1, le=65_535)] = 24
    columns: Annotated[int, Meta(ge=1, le=65_535)] = 80


class RunParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    spec: JobSpec
    env: dict[str, str] = {}
    """the command's whole environment; the daemon adds WORKER_JOB_ID"""
    after: Annotated[tuple[After, ...], Meta(max_length=64)] = ()
    """wait for these jobs to end"""
    at: Micros | None = None
    """do not start before this; microseconds since the epoch"""
    delay: Micros | None = None
    """do not start before so long has passed; not with `at`"""
    queue: bool = True
    """wait where the totals are taken; false: be refused"""
    stdin: bool = False
    """whether the one fd of this message is the command's standard input"""
    window: Window = Window()
    """of its terminal, where spec.tty asks for one"""
    fds: Fds = 0


class JobParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef


class ListParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    all: bool = False
    """finished jobs too"""
    states: tuple[State, ...] = ()
    """only these; overrides `all`"""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    labels: dict[LabelKey, str | None] = {}
    """only jobs that have all of these; null means any value"""
    before: JobRef | None = None
    """go on with the jobs older than this one (`next` of the last answer)"""


class WaitParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    ids: Annotated[tuple[JobRef, ...], Meta(min_length=1, max_length=10_000)]
    any: bool = False
    """answer when the first of them is finished, not the last"""
    timeout: Micros | None = None


class StopParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    signal: Signal | None = None
    grace: Micros | None = None


class KillParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    signal: Signal = 9
    all: bool = False
    """every process of the job, not only its command"""


class UpdateParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is not named stays as it is."""

    id: JobRef
    limits: Limits = Limits()
    lift: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """fields of `limits` that are to be no limit any more"""
    timeout: Micros | None = None
    """the whole time that the job may run; 0 lifts it"""


class RenameParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    name: JobName | None = None
    """null takes its name away"""


class RemoveParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    force: bool = False
    """stop it first where it is not finished"""


class PruneParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which finished jobs to forget: those that meet every condition given."""

    older_than: Micros | None = None
    """since their end"""
    keep: Annotated[int, Meta(ge=0)] | None = None
    """of those that the other conditions name, not the newest so many"""
    reasons: tuple[Reason, ...] = ()
    labels: dict[LabelKey, str | None] = {}
    dry_run: bool = False


class OutputWaitParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    timeout: Micros | None = None


class OutputReadParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    length: Annotated[int, Meta(ge=1, le=512 * 1024)] = 256 * 1024
    stream: Annotated[int, Meta(ge=1, le=2)] | None = None
    """1 or 2: only standard output or error"""


class ResizeParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: JobRef
    window: Window


class ExecParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """fds, without `tty`: standard input (where `stdin` says so), output and error."""

    id: JobRef
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    env: dict[str, str] = {}
    """on top of the job's own"""
    cwd: Text | None = None
    """the job's own where it is left out"""
    stdin: bool = False
    tty: bool = False
    """give it a terminal of its own"""
    window: Window = Window()
    fds: Fds = 0


class SubscribeParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Ask again with the answer's `next`, for as long as you care: nothing is missed in
    between, nor through a new connection or a restart of workerd."""

    cursor: Annotated[str, Meta(min_length=1, max_length=128)] = "now"
    """go on behind this one; `now`: with what happens next; `first`: with the oldest kept"""
    all: bool = False
    """everybody's, where an admin asks; of others their own"""
    jobs: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    """only of these, by their full ids"""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 500
    timeout: Micros | None = None
    """answer after so long though nothing has happened; 0: with what there is"""


class InfoParams(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class RunResult(Struct, frozen=True, omit_defaults=True):
    id: str
    state: State
    warnings: tuple[str, ...] = ()
    waits_for: str | None = None
    """why it is queued, in words"""


class ListResult(Struct, frozen=True, omit_defaults=True):
    jobs: tuple[Job, ...]
    """newest first"""
    next: str | None = None
    """give it as `before` for the rest; None when there is no more"""


class WaitResult(Struct, frozen=True, omit_defaults=True):
    finished: tuple[Job, ...]
    """in the order asked for; with `any` all that are finished by then"""
    pending: tuple[str, ...] = ()
    """the ids of those that are not"""


class PruneResult(Struct, frozen=True, omit_defaults=True):
    jobs: tuple[str, ...]
    """the ids that were (or, in a dry run, would be) forgotten, newest first"""
    bytes: int
    """that their output took on disk"""


class OutputOpenResult(Struct, frozen=True, omit_defaults=True):
    """Two fds, read only: the log and its index (workerd.output has the layout)."""

    id: str
    start: int
    """offset of the first byte kept"""
    end: int
    finished: bool
    fds: Fds = 2


class OutputWaitResult(Struct, frozen=True, omit_defaults=True):
    start: int
    end: int
    finished: bool
    """nothing will come after `end`"""


class OutputReadResult(Struct, frozen=True, omit_defaults=True):
    data: bytes
    """base64 on the wire"""
    offset: int
    """where `data` begins: later than asked for if bytes are gone"""
    next: int
    """the offset to ask for next"""
    finished: bool
    """nothing will come after `next`"""


class AttachResult(Struct, frozen=True, omit_defaults=True):
    """One fd, write only, non-blocking: what is written there is typed into the job's
    terminal. What the terminal shows is the job's output: output.open, output.wait."""

    id: str
    fds: Fds = 1


class ResizeResult(Struct, frozen=True, omit_defaults=True):
    id: str


class ExecResult(Struct, frozen=True, omit_defaults=True):
    """The leash, a SOCK_SEQPACKET socket, and with `tty` the terminal's master.

    The leash gives one message of two 32-bit words, host byte order: si_code and
    si_status of waitid(2), when the command has ended; end of file without it where that
    is not known. It takes messages of 8 bytes (1, signal, 0 …): a signal for the
    command's process group. When it is closed, the command gets SIGHUP, later SIGKILL.
    """

    id: str
    fds: Fds = 1


class SubscribeResult(Struct, frozen=True, omit_defaults=True):
    events: tuple[Event, ...]
    """in the order in which they were recorded. Where some before them are not kept any
    more, the first is a `gap`"""
    next: str
    """the cursor to ask for the next with"""
    more: bool = False
    """whether there are more by now"""


class Room(Struct, frozen=True, omit_defaults=True):
    """What there is for jobs; None: as much as one likes."""

    memory: int | None = None
    """bytes"""
    cpus: float | None = None
    jobs: int | None = None


class InfoResult(Struct, frozen=True, omit_defaults=True):
    version: str
    pid: int
    boot_id: str
    started: int
    socket: str
    state_dir: str
    cgroup: str
    controllers: tuple[str, ...]
    missing_controllers: tuple[str, ...]
    jobs_live: int
    jobs_queued: int
    jobs_finished: int
    uid: int
    """the caller as the daemon sees it"""
    admin: bool
    defaults: Limits = Limits()
    default_output: int = 64 << 20
    """bytes of output that are kept of a job of the caller's that does not say"""
    total: Room = Room()
    """what the caller's jobs could have at most: the least of the caller's totals, the
    machine's totals, and the host's memory and CPUs"""
    free: Room = Room()
    """what is left of that, less what the jobs that run now asked for"""


class Method(NamedTuple):
    params: type[Params]
    result: type[Any]
    doc: str


METHODS: dict[str, Method] = {
    "job.run": Method(RunParams, RunResult, "Start a job; answers when its command runs, or the job is queued."),
    "job.status": Method(JobParams, Job, "One job, with its usage and output so far, which may be a millisecond old."),
    "job.list": Method(ListParams, ListResult, "The caller's jobs (an admin's: everybody's)."),
    "job.wait": Method(WaitParams, WaitResult, "Answers when the jobs are finished."),
    "job.stop": Method(StopParams, Job, "Stop signal, grace, SIGKILL; answers when finished."),
    "job.kill": Method(KillParams, Job, "Send a signal to the command."),
    "job.pause": Method(JobParams, Job, "Freeze all processes; answers when they are."),
    "job.resume": Method(JobParams, Job, "Let a paused job go on."),
    "job.update": Method(UpdateParams, Job, "Change limits, all that are named or none."),
    "job.rerun": Method(JobParams, RunResult, "The same again, as a new job."),
    "job.rename": Method(RenameParams, Job, "Give a job another name, or none."),
    "job.remove": Method(RemoveParams, Job, "Forget a finished job and its output."),
    "job.prune": Method(PruneParams, PruneResult, "Forget finished jobs by age, count, reason, label."),
    "output.open": Method(JobParams, OutputOpenResult, "Read-only fds of the log and its index."),
    "output.wait": Method(
        OutputWaitParams, OutputWaitResult, "Answers when there is output past `offset`, or no more to come."
    ),
    "output.read": Method(OutputReadParams, OutputReadResult, "A piece of the output."),
    "tty.attach": Method(JobParams, AttachResult, "A descriptor to type into the job's terminal."),
    "tty.resize": Method(ResizeParams, ResizeResult, "Give the job's terminal another size."),
    "job.exec": Method(ExecParams, ExecResult, "Start one more command inside a running job."),
    "events.subscribe": Method(
        SubscribeParams, SubscribeResult, "What happened to jobs behind a cursor: answers once something did."
    ),
    "daemon.info": Method(InfoParams, InfoResult, "What the daemon is and what it can do."),
}

RequestId = int | str | None


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """A request; a notification where `id` is unset."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = Raw(b"{}")
    id: int | str | None | UnsetType = UNSET


class ErrorObject(Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    data: dict[str, Any] | None = None


class Response(Struct, frozen=True):
    """Exactly one of `result` and `error` is set."""

    id: int | str | None
    jsonrpc: str = "2.0"
    result: Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET


class _IdOnly(Struct, frozen=True):
    id: int | str | None = None


class FdCount(Struct, frozen=True):
    """How many fds a message's params or result claim."""

    fds: Fds = 0


_encoder = msgspec.json.Encoder()
_id_decoder = msgspec.json.Decoder(_IdOnly)
_request_decoder = msgspec.json.Decoder(Request)
_fds_decoder = msgspec.json.Decoder(FdCount)
_batch_decoder = msgspec.json.Decoder(list[Raw])
_params_decoders = {name: msgspec.json.Decoder(method.params) for name, method in METHODS.items()}
_QUOTED = 400
"""characters at each end of a decoder's message that are told"""
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def split_batch(line: bytes) -> list[Raw] | None:
    """The members of a batch, or None where the line is no array.

    Raises ParseError, or InvalidRequest for an empty batch and one of more than MAX_BATCH.
    """
    if not line.lstrip(b" \t\r").startswith(b"["):
        return None
    try:
        members = _batch_decoder.decode(line)
    except _DECODE_ERRORS as error:
        raise errors.ParseError(f"not JSON: {error}") from error
    if not members:
        raise errors.InvalidRequest("an empty batch")
    if len(members) > MAX_BATCH:
        raise errors.InvalidRequest(f"a batch of {len(members)} requests; send at most {MAX_BATCH}")
    return members


def decode_request(data: bytes | Raw) -> Request:
    """Raises ParseError or InvalidRequest; `recover_id` then finds the id."""
    try:
        return _request_decoder.decode(data)
    except msgspec.ValidationError as error:
        raise errors.InvalidRequest(f"not a JSON-RPC 2.0 request: {_short(error)}") from error
    except _DECODE_ERRORS as error:
        raise errors.ParseError(f"not JSON: {error}") from error


def recover_id(data: bytes | Raw) -> RequestId:
    """The id of a request that could not be decoded, or None."""
    try:
        return _id_decoder.decode(data).id
    except _DECODE_ERRORS:
        return None


def decode_params(request: Request) -> Params:
    """Raises MethodNotFound or InvalidParams."""
    decoder = _params_decoders.get(request.method)
    if decoder is None:
        raise errors.MethodNotFound(f"no method {request.method!r}")
    try:
        return decoder.decode(request.params)
    except _DECODE_ERRORS as error:
        raise errors.InvalidParams(_short(error)) from error


def _short(error: Exception) -> str:
    """What it says, which may quote all that a caller sent."""
    text = str(error)
    return text if len(text) <= 2 * _QUOTED else f"{text[:_QUOTED]} … {text[-_QUOTED:]}"


def claimed_fds(request: Request) -> int:
    """How many descriptors came with a request that was refused: they are not the next
    one's."""
    try:
        return _fds_decoder.decode(request.params).fds
    except _DECODE_ERRORS:
        return 0


def encode(message: Struct | list[Any] | dict[str, Any]) -> bytes:
    """One line with its newline."""
    return _encoder.encode(message) + b"\n"


def encoded(result: Struct) -> bytes:
    """A result, for any number of answers: what comes after the id in them (`encode_answer`)."""
    return b',"jsonrpc":"2.0","result":' + _encoder.encode(result) + b"}\n"


def encode_answer(request_id: RequestId, result: bytes) -> bytes:
    """A Response, as a line."""
    return b'{"id":' + _encoder.encode(request_id) + result


def encode_result(request_id: RequestId, result: Struct) -> bytes:
    return encode_answer(request_id, encoded(result))


def encode_error(request_id: RequestId, error: errors.WorkerError) -> bytes:
    # A message may quote what a caller sent, lone surrogates and all; UTF-8 has none.
    data = {key: _plain(value) for key, value in {"kind": error.kind, **error.data}.items()}
    return encode(Response(id=request_id, error=ErrorObject(error.code, str(_plain(error.message)), data)))


def _plain(value: str | int | None) -> str | int | None:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def error_from(answer: ErrorObject) -> errors.WorkerError:
    """The error that an answer stands for, as its own class again."""
    data = dict(answer.data or {})
    error = errors.BY_KIND.get(str(data.pop("kind", "")), errors.WorkerError)(answer.message)
    error.data = data
    return error
