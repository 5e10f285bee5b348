"""One more command inside a running job (job.exec).

workerd starts it and steps aside: the supervisor (workerd/init/enter.c) and the client
hold the two ends of a leash, and what happens from then on is between them, whether the
daemon lives or not. Here remains the duty of a parent, to reap the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from typing import NamedTuple

from workerd import launcher
from workerd.auth import Peer
from workerd.errors import Exhausted, InvalidParams, StartFailed, WorkerError, WrongState, as_worker_error
from workerd.job import State
from workerd.protocol import ExecParams, Window
from workerd.registry import Live, Registry
from workerd.supervisor import Supervisor

_TTY_GROUP = 5
"""of a terminal's slave, as the job's devpts is mounted with"""
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
"""asm-generic/ioctls.h"""


class Streams(NamedTuple):
    """The command's standard descriptors, and the master where they are a terminal."""

    stdin: int | None
    stdout: int
    stderr: int
    master: int | None = None


class Executor:
    """Starts commands; owns the pidfds of their supervisors until they are reaped."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._registry: Registry = supervisor.registry
        self._loop = asyncio.get_running_loop()
        self._pidfds: set[int] = set()

    def close(self) -> None:
        """Let go; the commands run on, and the system's init reaps their supervisors."""
        for pidfd in tuple(self._pidfds):
            self._forget(pidfd)

    async def execute(self, peer: Peer, params: ExecParams, fds: tuple[int, ...]) -> tuple[int, ...]:
        """The client's end of the leash, and the master of its terminal; the caller's to
        close. Raises WrongState, StartFailed and its kinds, InvalidParams, NoSuchJob."""
        _check(params, fds)
        live = await self._find(peer, params.id)
        env = await self._registry.call(lambda store: store.environ(live.job.id))
        env = {**env, "WORKER_JOB_ID": live.job.id, **params.env}
        try:
            streams = _terminal(live, params.window) if params.tty else _passed(params, fds)
        except OSError as error:
            raise _ended(live) if live.pidfd < 0 else as_worker_error(error) from error
        try:
            leash = await self._start(live, params, env, streams)
        except BaseException:
            if streams.master is not None:
                os.close(streams.master)
            raise
        finally:
            if streams.master is not None:
                os.close(streams.stdout)
                os.close(streams.stderr)
        return (leash,) if streams.master is None else (leash, streams.master)

    async def _find(self, peer: Peer, ref: str) -> Live:
        job = await self._registry.find(peer, ref)
        live = self._registry.get(job.id)
        if live is not None and live.job.state is State.PAUSED:
            message = f"job {job.id} is paused, and so would be the command: workerctl resume {job.id}"
            raise WrongState(message, id=job.id, state=live.job.state)
        if live is None or live.job.state is not State.RUNNING:
            state = job.state if live is None else live.job.state
            raise WrongState(f"job {job.id} is {state}: a command can only join one that runs", id=job.id, state=state)
        return live

    async def _start(self, live: Live, params: ExecParams, env: dict[str, str], streams: Streams) -> int:
        if live.cgroup is None or live.pidfd < 0:
            raise _ended(live)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            entry = launcher.Entry(
                job=live.job,
                argv=params.argv,
                env=env,
                cwd=params.cwd,
                tty=params.tty,
                cgroup_fd=live.cgroup.fd,
                pidfd=live.pidfd,
                leash=theirs.fileno(),
                stdout=streams.stdout,
                stderr=streams.stderr,
                stdin=streams.stdin,
            )
            try:
                started = await self._supervisor.launcher.enter(entry)
            except StartFailed as error:
                raise _meaning(live, error) from error
            except OSError as error:
                raise as_worker_error(error) from error
            self._watch(started.pidfd)
            return ours.detach()

    def _watch(self, pidfd: int) -> None:
        self._pidfds.add(pidfd)
        self._loop.add_reader(pidfd, self._ended, pidfd)

    def _ended(self, pidfd: int) -> None:
        launcher.reap(pidfd)
        self._forget(pidfd)

    def _forget(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        self._pidfds.discard(pidfd)
        os.close(pidfd)


def _check(params: ExecParams, fds: tuple[int, ...]) -> None:
    wanted = 0 if params.tty else 2 + int(params.stdin)
    if params.tty and params.stdin:
        raise InvalidParams("with a terminal there is no other standard input", field="stdin")
    if len(fds) != wanted:
        raise InvalidParams(f"{len(fds)} file descriptors came, {wanted} were wanted", field="fds")
    if not params.argv[0] or any("\0" in word for word in params.argv):
        raise InvalidParams("the command is empty, or a word of it has a NUL character", field="argv")
    if params.cwd is not None and (not params.cwd.startswith("/") or "\0" in params.cwd):
        raise InvalidParams(f"cwd must be an absolute path, not {params.cwd!r}", field="cwd")
    for name, value in params.env.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidParams(f"environment variable {name!r}: no empty name, no '=' in it, no NUL", field="env")


def _passed(params: ExecParams, fds: tuple[int, ...]) -> Streams:
    return Streams(*fds) if params.stdin else Streams(None, *fds)


def _terminal(live: Live, window: Window) -> Streams:
    """A pty of the job's own devpts, the slave the job's user's. Raises OSError."""
    master = _open_ptmx(live)
    slave = -1
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        os.fchown(slave, live.job.uid, _TTY_GROUP)
        modes = termios.tcgetattr(slave)
        modes[0] |= 0o40000  # IUTF8 (termios(3)): erase takes a whole character
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", window.rows, window.columns, 0, 0))
        return Streams(None, slave, fcntl.fcntl(slave, fcntl.F_DUPFD_CLOEXEC, 3), master)
    except BaseException:
        os.close(master)
        if slave >= 0:
            os.close(slave)
        raise


def _open_ptmx(live: Live) -> int:
    """/dev/pts/ptmx as the job sees it; step by step, so that no link is followed."""
    with contextlib.ExitStack() as stack:
        at = os.open(f"/proc/{live.job.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, at)
        for name in ("dev", "pts"):
            at = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            stack.callback(os.close, at)
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    if live.pidfd < 0 or select.select([live.pidfd], [], [], 0)[0]:
        os.close(master)  # its PID 1 is dead: the pid may have been somebody else's
        raise ProcessLookupError(3, "the job has just ended")
    return master


def _meaning(live: Live, error: StartFailed) -> WorkerError:
    if error.data.get("step") not in ("enter", "clone", "fork"):
        return error
    if error.data.get("errno") == errno.EAGAIN:
        return Exhausted(f"job {live.job.id} has as many processes as it may (--pids)", id=live.job.id)
    return _ended(live)


def _ended(live: Live) -> WorkerError:
    return WrongState(f"job {live.job.id} has just ended", id=live.job.id, state=live.job.state)
