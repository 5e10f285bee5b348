"""What a job is. Pure: no I/O, no clock; all changes of a job's state go through here.

Units everywhere: bytes, microseconds (times are microseconds since the epoch,
UTC), bytes or operations per second. A limit of None is "not limited".
"""

from __future__ import annotations

import enum
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workerd.errors import WrongState

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 10


class State(enum.StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"


class Reason(enum.StrEnum):
    """Why a job is finished."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    START_FAILED = "start-failed"
    LOST = "lost"
    SKIPPED = "skipped"
    """it waited for another job to end in a way in which that did not end"""


class OnTimeout(enum.StrEnum):
    """What happens to a job whose time is over."""

    STOP = "stop"
    PAUSE = "pause"


class Restart(enum.StrEnum):
    """After which ends a job is tried again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.FINISHED}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPING, State.QUEUED, State.FINISHED}),
    State.RUNNING: frozenset({State.PAUSED, State.STOPPING, State.QUEUED, State.FINISHED}),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPING, State.QUEUED, State.FINISHED}),
    State.STOPPING: frozenset({State.QUEUED, State.FINISHED}),
    State.FINISHED: frozenset(),
}
"""Back to queued goes a job that is tried, or started, again (workerd.restarting)."""

PositiveInt = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Weight = Annotated[int, Meta(ge=1, le=10_000)]
Text = Annotated[str, Meta(max_length=4096)]
JobName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=64)]
LabelKey = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?\Z", max_length=64)]
LabelValue = Annotated[str, Meta(max_length=256)]


class IoLimit(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """io.max of one device. `device` is a path on the file system meant, a device
    node, or MAJOR:MINOR; None means every disk of the machine."""

    device: Text | None = None
    read_bps: PositiveInt | None = None
    write_bps: PositiveInt | None = None
    read_iops: PositiveInt | None = None
    write_iops: PositiveInt | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a job may use (kernel: Documentation/admin-guide/cgroup-v2.rst)."""

    memory: PositiveInt | None = None
    """bytes; memory.max"""
    swap: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    """bytes; memory.swap.max. None with a memory limit means 0"""
    cpus: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    """CPUs' worth of time; cpu.max"""
    cpu_weight: Weight | None = None
    cpuset: Annotated[str, Meta(pattern=r"\A[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\Z", max_length=1024)] | None = None
    """a list of CPUs such as 0-3,6; cpuset.cpus"""
    pids: Annotated[int, Meta(ge=1, le=4_194_303)] | None = None
    """processes and threads of the command (pids.max is one more, for PID 1)"""
    io: Annotated[tuple[IoLimit, ...], Meta(max_length=64)] = ()
    io_weight: Weight | None = None


class MountKind(enum.StrEnum):
    RW = "rw"
    RO = "ro"
    BIND = "bind"
    BIND_RO = "bind-ro"
    TMPFS = "tmpfs"


class Mount(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change to the job's view of the file system, in the order given.

    rw, ro: `target` itself, writable or not. bind, bind-ro: the caller's `source`
    appears at `target`. tmpfs: an empty one of `size` bytes at `target`.
    """

    kind: MountKind
    target: Text
    source: Text | None = None
    size: PositiveInt | None = None


class Net(enum.StrEnum):
    NONE = "none"
    BRIDGE = "bridge"
    HOST = "host"


class Protocol(enum.StrEnum):
    TCP = "tcp"
    UDP = "udp"


Port = Annotated[int, Meta(ge=1, le=65_535)]


class Publish(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A port of the host's, on all its addresses, that leads to one of the job's."""

    host: Port
    job: Port
    protocol: Protocol = Protocol.TCP


class RestartPolicy(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    when: Restart = Restart.NEVER
    limit: PositiveInt | None = None
    """tries after the first one, at most"""


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to run and how, as the caller asked for it. The environment travels and
    is stored beside it, so that showing a job never shows its secrets."""

    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    cwd: Text = "/"
    name: JobName | None = None
    limits: Limits = Limits()
    net: Net = Net.NONE
    publish: Annotated[tuple[Publish, ...], Meta(max_length=64)] = ()
    """with net bridge only"""
    hostname: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z", max_length=64)] | None = None
    mounts: Annotated[tuple[Mount, ...], Meta(max_length=256)] = ()
    rootfs: Text | None = None
    read_only: bool = False
    umask: Annotated[int, Meta(ge=0, le=0o777)] = 0o022
    user: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """NAME or UID, with :GROUP where it is to be another group than the account's: run as
    that user, whose job it then is (admins only). None: the caller"""
    cap_add: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)] = ()
    """capabilities beside those that root's jobs have (admins only, jobs of root only)"""
    seccomp: bool = True
    """whether system calls are filtered; only admins may do without"""
    max_output: PositiveInt | None = None
    """bytes of output kept; None means the policy's default"""
    stop_signal: Annotated[int, Meta(ge=1, le=64)] = 15
    grace: Annotated[int, Meta(ge=0, le=86_400_000_000)] = 10_000_000
    """microseconds between the stop signal and SIGKILL"""
    timeout: PositiveInt | None = None
    """microseconds that it may run, paused time not counted"""
    cpu_time: PositiveInt | None = None
    """microseconds of CPU time that all its processes together may use"""
    on_timeout: OnTimeout = OnTimeout.STOP
    restart: RestartPolicy = RestartPolicy()
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    """among the waiting jobs of the same user: higher ones start first"""
    tty: bool = False
    """whether it has a terminal: the command's input, output and errors in one"""
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=64)] = {}
    remove: bool = False
    """forget the job, with its output, moments after its end"""


class Outcome(enum.StrEnum):
    """How another job is to end."""

    ANY = "any"
    OK = "ok"
    """with exit code 0"""
    FAILED = "failed"
    """in any other way"""


class After(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A condition: start only when that job has ended, and so."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    outcome: Outcome = Outcome.ANY

    def met_by(self, ended: Job | None) -> bool:
        """None is a job that nobody remembers."""
        if self.outcome is Outcome.ANY:
            return True
        return ended is not None and ended.succeeded is (self.outcome is Outcome.OK)

    def words(self) -> str:
        return {Outcome.ANY: "end", Outcome.OK: "succeed", Outcome.FAILED: "fail"}[self.outcome]

    def unmet(self, ended: Job | None) -> str:
        """Why it can no longer be met."""
        how = "it is not recorded any more" if ended is None else f"it {ended.ending}"
        return f"{self.id} was to {self.words()}, but {how}"


class Usage(Struct, frozen=True, omit_defaults=True):
    """What a job has used; None where the host has no such account."""

    cpu_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    throttled_usec: int | None = None
    throttled_periods: int | None = None
    memory_current: int | None = None
    memory_peak: int | None = None
    swap_peak: int | None = None
    memory_max_hits: int | None = None
    """times that memory.max was reached (memory.events: max)"""
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    pids_current: int | None = None
    pids_peak: int | None = None
    pids_max_hits: int | None = None
    cpu_pressure_usec: int | None = None
    memory_pressure_usec: int | None = None
    io_pressure_usec: int | None = None
    """PSI `some` totals"""


class Try(Struct, frozen=True, omit_defaults=True):
    """One run of a job that was then tried again; the fields are those of Job."""

    reason: Reason
    finished: int
    started: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None
    output_start: int = 0
    """where in the job's output this try's begins and ends"""
    output_end: int = 0


class StartError(Struct, frozen=True):
    """The step of a launch that failed, its errno (0 for none), and in words."""

    step: str
    errno: int
    message: str


class RunClock(Struct, frozen=True):
    """How long a job has been running, paused time left out. Microseconds."""

    ran: int = 0
    """until it was paused last"""
    since: int | None = None
    """when it last began to run, by CLOCK_MONOTONIC; None while it is paused"""

    def ran_until(self, monotonic: int) -> int:
        return self.ran + (0 if self.since is None else max(0, monotonic - self.since))

    def paused(self, monotonic: int) -> RunClock:
        return RunClock(self.ran_until(monotonic))

    def running(self, monotonic: int) -> RunClock:
        return RunClock(self.ran, monotonic) if self.since is None else self


class StopOrder(Struct, frozen=True):
    """A stop under way, so that a restarted daemon goes on with it as it was meant."""

    signal: int
    """the first one, to the command"""
    deadline: int
    """when the rest is killed: microseconds of CLOCK_MONOTONIC, which daemons of one boot share"""


class SignalSent(Struct, frozen=True):
    """A signal that somebody had workerd send to the job (job.kill)."""

    number: int
    sent: int
    """microseconds since the epoch"""
    uid: int
    """whose wish it was"""


class Job(Struct, frozen=True, omit_defaults=True):
    """A job as it is recorded and shown."""

    id: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    spec: JobSpec
    state: State
    created: int
    started: int | None = None
    finished: int | None = None
    duration: int | None = None
    """that the command ran, by a clock that nobody sets"""
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None
    """a word or two on the reason, such as `reboot` for a lost job"""
    start_error: StartError | None = None
    stop_requested: bool = False
    stop: StopOrder | None = None
    signaled: SignalSent | None = None
    """the last one of this try"""
    clock: RunClock | None = None
    timed_out: str | None = None
    """`timeout` or `cpu-time` once that limit was reached"""
    effective: Limits | None = None
    """the limits as read back from the kernel"""
    warnings: tuple[str, ...] = ()
    usage: Usage | None = None
    output_end: int | None = None
    """bytes of output stored in all, once finished: where its log ends"""
    output_start: int = 0
    """where the log begins: what came before was released (`max_output`)"""
    output_lost: int = 0
    """bytes of output that could not be stored: the disk was full, say"""
    address: str | None = None
    """its IPv4 address on the bridge"""
    pid: int | None = None
    """the job's PID 1 as the host sees it"""
    pid_start: int | None = None
    """its start time in clock ticks since boot (proc_pid_stat(5), field 22)"""
    boot_id: str | None = None
    after: tuple[After, ...] = ()
    """what it still waits for"""
    start_at: int | None = None
    """not before this; microseconds since the epoch"""
    start_mono: int | None = None
    """where it was a delay: the same by CLOCK_MONOTONIC, which holds within boot_id"""
    restarts: int = 0
    """how often it was tried again"""
    tries: tuple[Try, ...] = ()
    """the newest of those before the one that the other fields speak of"""
    start_attempts: int = 0
    """how often it was taken out of the queue to be started, since its command ran last"""
    rerun_of: str | None = None
    waits_for: str | None = None
    """why a queued job waits, in words; never stored"""

    @property
    def succeeded(self) -> bool:
        return self.reason is Reason.EXITED and self.exit_code == 0

    @property
    def ending(self) -> str:
        """How it ended, after the word `it`."""
        if self.reason is Reason.EXITED:
            return f"exited with {self.exit_code}"
        if self.reason is Reason.SIGNALED:
            return f"was killed by signal {self.signal}"
        return f"ended as {self.reason}"

    @property
    def live(self) -> bool:
        """Whether it holds, or may hold, processes."""
        return self.state not in (State.QUEUED, State.FINISHED)


def new_id() -> str:
    """50 random bits; the caller checks that the id is free."""
    return "".join(ID_ALPHABET[byte & 31] for byte in secrets.token_bytes(ID_LENGTH))


def change(job: Job, state: State, **fields: object) -> Job:
    """The job in its new state. Raises WrongState, and changes nothing, where
    TRANSITIONS has no such step."""
    if state not in TRANSITIONS[job.state]:
        raise WrongState(f"job {job.id} is {job.state}; it cannot become {state}", id=job.id, state=job.state)
    return msgspec.structs.replace(job, state=state, **fields)


def shell_code(job: Job) -> int:
    """The exit code that a shell would give for a finished job."""
    if job.reason is Reason.TIMEOUT:
        return 124
    if job.reason is Reason.START_FAILED:
        return _start_failed_code(job.start_error)
    if job.signal is not None:
        return 128 + job.signal
    return job.exit_code if job.exit_code is not None else 125


def _start_failed_code(error: StartError | None) -> int:
    if error is None or error.step != "exec":
        return 125
    return 127 if error.errno == 2 else 126
