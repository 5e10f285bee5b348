"""Starts worker-init for one job and waits until its command runs, or did not.

The first stage of worker-init clones PID 1 (a child of ours, by CLONE_PARENT) and says
its pid on the status pipe; end of file there means that the command has been exec'ed.
That stage is one that stays (workerd.zygote), or else one of the launch's own, which
leaves. In between PID 1 waits for our word to go: until the job is recorded, has its run-time files,
and is connected where it has a network. It leaves where that word can no longer come, and only a PID 1 that
we know gets it: so what a first stage that says nothing was to start can be started by
another one. A PID 1 that it cloned, and was killed before it said so, is found in the job's
cgroup and ended.
Whatever happens, no fd and no zombie stays behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from workerd import jobfiles, procfs, sandbox, startstatus, untold
from workerd.endings import Endings
from workerd.errors import Exhausted, StartFailed, WorkerError
from workerd.job import Job, Net
from workerd.retrying import until_possible
from workerd.sealedprogram import SealedProgram
from workerd.startgate import TRIES, Gate, StatusPipe
from workerd.zygote import FIRST_FD, Zygote

log = logging.getLogger("workerd")

_PATIENCE, _AVOIDED = 10.0, 60.0
"""seconds that the zygote may take until it says anything of a plan; and, where it took longer
(a mount of the host's that does not answer, say), that launches have first stages of their own"""


class Started(NamedTuple):
    """A running PID 1. The caller owns the pidfd."""

    pid: int
    pidfd: int
    start_ticks: int | None = None
    """as procfs.start_ticks; None where it could not be read, which nothing depends on"""


class Launch(NamedTuple):
    job: Job
    env: dict[str, str]
    cgroup_fd: int
    runtime: Callable[[], jobfiles.RuntimeFiles]
    """gives its run-time files, which stay the caller's, once PID 1 is being made; what it
    raises (WorkerError) ends the start"""
    output: Callable[[Callable[[jobfiles.OutputFiles], None]], Awaitable[jobfiles.OutputFiles]]
    """gives its log and index, likewise, once the command may run; where they have still to be made it
    calls what it is given with them, in the thread that makes them"""
    max_output: int
    stdin: int | None = None
    interface: sandbox.Interface | None = None
    connect: Callable[[int], Awaitable[None]] | None = None
    """gives PID 1 its network before that; what it raises ends the start"""
    window: tuple[int, int] = (24, 80)
    """rows and columns of its terminal, where spec.tty asks for one"""


class Entry(NamedTuple):
    """One more command in a running job; the fds stay the caller's."""

    job: Job
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str | None
    tty: bool
    """`stdout` is its terminal, as are the others"""
    cgroup_fd: int
    pidfd: int
    """of the job's PID 1"""
    leash: int
    stdout: int
    stderr: int
    stdin: int | None = None


class _NotTaken(Exception):
    """The zygote did not carry out a plan: nothing of it is there."""


class Launcher:
    """Made once. SIGCHLD wakes nobody: a first stage has long ended when its command
    runs, and the end of a PID 1 is told by its pidfd."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        init_path: str,
        hidden: tuple[str, ...],
        ending: Callable[[int], None],
    ) -> None:
        """`ending` is called with the pid of a PID 1 whose job is over, where that is known before its end."""
        self._loop = loop
        self._program = SealedProgram(init_path)
        self._endings = Endings(loop, ending)
        self._zygote = Zygote(loop, self._program, self._endings.far_end)
        self._zygote.prepare()
        self._hidden = hidden
        self._avoided_until = 0.0

    def close(self) -> None:
        self._zygote.close()
        self._endings.close()
        self._program.close()

    async def start(self, launch: Launch) -> Started:
        """Raises StartFailed (or its kinds) with the step that failed, Exhausted, OSError,
        and what `launch.runtime`, `launch.output` and `launch.connect` raise."""
        # What a client passed stays out of the zygote: a file of FUSE may hold up whoever closes it.
        spec = launch.job.spec
        is_usual = spec.net is not Net.HOST and launch.stdin is None and not spec.cap_add
        if is_usual and self._avoided_until <= self._loop.time():
            with contextlib.suppress(_NotTaken):
                return await self._start(launch, by_zygote=True)
        return await self._start(launch, by_zygote=False)

    async def _start(self, launch: Launch, *, by_zygote: bool) -> Started:
        """Raises as `start`, _NotTaken."""
        with contextlib.closing(StatusPipe()) as status, contextlib.closing(Gate()) as gate:
            first_stage = self._begin(launch, status.write_end, gate.far_end, by_zygote=by_zygote)
            try:
                with self._watch(first_stage, launch, status, gate):
                    status.close_write_end()
                    gate.close_far_end()
                    refusal = await self._let_go(launch, status, gate, early=by_zygote and launch.connect is None)
                    gate.close()
                    ended = status.read()
                    pid = gate.pid or startstatus.pid_of(status.text)
                    start_ticks = _start_ticks(pid)  # while it has something to do
                    if not ended:
                        await status.wait(None)
            finally:
                if first_stage is not None:
                    await _collect_first_stage(first_stage)
        pid, error = startstatus.parse(status.text, launch.job.id, gate.pid)
        if not pid:
            await untold.collect(launch.cgroup_fd)
        if by_zygote and not (status.text or gate.pid):
            raise refusal or _NotTaken
        pidfd = await _open_pidfd(pid)
        if error is None and refusal is None:
            return Started(pid, pidfd, start_ticks)
        if pid:
            await self._collect(pidfd)
        told = error is not None and (refusal is None or error.data.get("step") != "go")
        raise error if error is not None and told else refusal or AssertionError

    async def enter(self, entry: Entry) -> Started:
        """The supervisor of a command that runs by now; raises as `start`."""
        with contextlib.closing(StatusPipe()) as status:
            first_stage = self._spawn_entry(entry, status.write_end)
            try:
                status.close_write_end()
                await status.wait(None)
            finally:
                await _collect_first_stage(first_stage)
        pid, error = startstatus.parse(status.text, entry.job.id)
        pidfd = await _open_pidfd(pid)
        if error is None:
            return Started(pid, pidfd)
        if pid:
            await self._collect(pidfd)
        raise error

    async def _let_go(self, launch: Launch, status: StatusPipe, gate: Gate, *, early: bool) -> WorkerError | None:
        """Have PID 1 run the command, once everything else is there; `early`, before we know that it
        is. Else, what there is to say about it."""

        def made(output: jobfiles.OutputFiles) -> None:
            if early:
                gate.open_early(output, runtime)

        try:
            runtime = launch.runtime()
            output = await launch.output(made)
            if not gate.stays_closed():
                return None
            if not status.read() and not status.text:
                await status.wait(b"pid ")
            pid, error = startstatus.parse(status.text, launch.job.id)
            if error is not None:
                return None  # it will be told with the rest
            if launch.connect is not None:
                await launch.connect(pid)
            gate.open(output, runtime)
        except WorkerError as refusal:
            return refusal
        except OSError as error:
            return Exhausted(f"cannot hand its output to a job: {error.strerror}", errno=error.errno)
        return None

    @contextlib.contextmanager
    def _watch(self, first_stage: int | None, launch: Launch, status: StatusPipe, gate: Gate) -> Iterator[None]:
        """It has just been handed a plan, and may be killed before it tells of a PID 1."""
        if first_stage is None:
            with self._watch_zygote(launch, status, gate):
                yield
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # for want of descriptors or memory
                pidfd = os.pidfd_open(first_stage)
                stack.callback(os.close, pidfd)
                self._loop.add_reader(pidfd, self._own_ended, pidfd, launch, status, gate)
                stack.callback(self._loop.remove_reader, pidfd)
            yield

    def _own_ended(self, pidfd: int, launch: Launch, status: StatusPipe, gate: Gate) -> None:
        self._loop.remove_reader(pidfd)
        _kill_untold(launch, status, gate)

    @contextlib.contextmanager
    def _watch_zygote(self, launch: Launch, status: StatusPipe, gate: Gate) -> Iterator[None]:
        """Which may not answer, too."""
        ended = self._zygote.ended

        def when_ended(_: asyncio.Future[None]) -> None:
            _kill_untold(launch, status, gate)

        ended.add_done_callback(when_ended)
        hurry = self._loop.call_later(_PATIENCE, self._hurry, status)
        try:
            yield
        finally:
            hurry.cancel()
            ended.remove_done_callback(when_ended)

    def _hurry(self, status: StatusPipe) -> None:
        """Of a plan that the zygote has had for long: have it started by somebody else."""
        if not status.has_said():
            log.error(
                "worker-init's first stage does not answer (a mount of this machine's may not): it is killed, and "
                "for a minute each job has one of its own"
            )
            self._avoided_until = self._loop.time() + _AVOIDED
            self._zygote.kill()

    async def _collect(self, pidfd: int) -> None:
        """A PID 1 that told of its failure is about to exit; nothing else is in it."""
        done = asyncio.Event()
        await until_possible(lambda: self._loop.add_reader(pidfd, done.set), "a failed start cannot be watched", TRIES)
        try:
            await done.wait()
            reap(pidfd)
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _spawn_entry(self, entry: Entry, status: int) -> int:
        fds = sandbox.EntryDescriptors(
            cgroup=entry.cgroup_fd,
            init=entry.pidfd,
            leash=entry.leash,
            status=status,
            stdout=entry.stdout,
            stderr=entry.stderr,
            stdin=entry.stdin,
        )
        words = sandbox.entry(entry.job, fds, entry.argv, cwd=entry.cwd, tty=entry.tty)
        return self._spawn(words, entry.env, fds.named(), entry.job.id)

    def _begin(self, launch: Launch, status: int, gate: int, *, by_zygote: bool) -> int | None:
        """The pid of a first stage of its own; None where the zygote has the plan. Raises
        _NotTaken where it would not have it."""
        fds = sandbox.Descriptors(cgroup=launch.cgroup_fd, status=status, go=gate, stdin=launch.stdin)
        if by_zygote:
            words = self._plan(launch, fds.numbered(FIRST_FD))
            if not self._zygote.hand(words, launch.env, [fd for _, fd in fds.named()]):
                raise _NotTaken
            return None
        return self._spawn(self._plan(launch, fds), launch.env, fds.named(), launch.job.id)

    def _plan(self, launch: Launch, fds: sandbox.Descriptors) -> list[str]:
        return sandbox.plan(
            launch.job,
            fds,
            max_output=launch.max_output,
            hidden=self._hidden,
            interface=launch.interface,
            window=launch.window,
        )

    def _spawn(self, words: list[str], env: dict[str, str], fds: list[tuple[str, int]], job_id: str) -> int:
        try:
            return self._program.spawn(words, env, {fd: fd for _, fd in fds})
        except OSError as error:
            if error.errno == errno.E2BIG:
                message = "the arguments and the environment are too long for the kernel"
                raise StartFailed(message, id=job_id, step="exec", errno=error.errno) from error
            if error.errno in (errno.EAGAIN, errno.ENOMEM):
                raise Exhausted(f"cannot start a process: {error.strerror}") from error
            raise


def _kill_untold(launch: Launch, status: StatusPipe, gate: Gate) -> None:
    """Of a first stage that has ended: the PID 1 that it did not tell of, unless that goes already."""
    if not status.has_said() and gate.stays_closed():
        untold.kill(launch.cgroup_fd)


def _start_ticks(pid: int) -> int | None:
    """Of a PID 1, a child that is not reaped yet, or 0."""
    if not pid:
        return None
    try:
        return procfs.start_ticks(pid)
    except OSError as error:
        log.warning("when process %d started is not known: %s", pid, error)
        return None


async def _collect_first_stage(pid: int) -> None:
    """It has nothing left to do but to exit."""
    if not _is_reaped(pid):
        await asyncio.to_thread(os.waitpid, pid, 0)


def _is_reaped(pid: int) -> bool:
    """Whether it had ended."""
    return os.waitpid(pid, os.WNOHANG)[0] != 0


async def _open_pidfd(pid: int) -> int:
    """Of a child that is not reaped yet, so that the pid is its own; -1 of none. Raises
    OSError, and then it is dead and reaped."""
    if not pid:
        return -1
    try:
        return await until_possible(lambda: os.pidfd_open(pid), f"process {pid} cannot be watched", TRIES)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, procfs.WALL)
        raise


def reap(pidfd: int) -> None:
    """Collect a dead PID 1 if it is our child; after a restart it is init's."""
    with contextlib.suppress(OSError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | procfs.WALL)
