"""The daemon's side of `worker-init zygote`: the first stage that stays.

It is handed one plan after another, each as one message (workerd/init/zygote.c), and
clones a PID 1 for each: no program is executed for a launch, and the namespaces that the
job takes over have been made before. Whatever it cannot take (too long a plan, a host's
network, a zygote that was killed), the caller starts by itself. It leaves when this end
of its socket is closed, so it never outlives the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence

from workerd.sealedprogram import SealedProgram

log = logging.getLogger("workerd")

FIRST_FD = 5
"""the number that the first of a plan's descriptors has there; the next ones follow"""
_SOCKET_FD, _ENDINGS_FD = 3, 4
_HEADER = struct.Struct("=II")
"""how many words, how many of the environment"""
_MOST_BYTES = 128 << 10
_MOST_STRINGS = 4096


class Zygote:
    """Started by `prepare`, and again with the next plan where it has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, program: SealedProgram, endings: int) -> None:
        """`endings` is where its PID 1s say that their jobs are over (workerd.endings)."""
        self._loop = loop
        self._program = program
        self._endings = endings
        self.ended: asyncio.Future[None] = loop.create_future()
        """done when the one that was handed a plan last has gone: what it has not cloned by then, it never will"""
        self._socket: socket.socket | None = None
        self._children: list[int] = []
        """that have not been reaped; the last one may be at work"""

    def prepare(self) -> None:
        """Start it while no client's descriptor is here: a child closes its copies of all of
        them as it executes, which a file of FUSE may hold up."""
        try:
            self._start()
        except OSError as error:
            log.warning("worker-init's first stage is not there yet: %s", error)

    def close(self) -> None:
        """It carries out what it was handed, and leaves; can be called twice."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def kill(self) -> None:
        """It does not answer: whatever it was handed and has not carried out, it never will."""
        self._socket = None  # which is closed when it has ended
        if self._children:
            os.kill(self._children[-1], signal.SIGKILL)  # not reaped by anybody else, so its own pid

    def hand(self, words: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> bool:
        """Whether it has the plan, and will tell what becomes of it; else nothing was done.
        `words` name the descriptors by the numbers that they get there. They stay the caller's."""
        text = _message(words, env)
        if text is None:
            return False
        try:
            return self._send(text, fds)
        except ConnectionError:
            self._socket = None  # it is gone
        try:
            return self._send(text, fds)
        except ConnectionError:
            self._socket = None
            return False

    def _send(self, text: bytes, fds: Sequence[int]) -> bool:
        """Raises ConnectionError where there is nobody to send it to."""
        try:
            if self._socket is None:
                self._start()
            assert self._socket is not None
            socket.send_fds(self._socket, [text], fds, socket.MSG_NOSIGNAL)
        except ConnectionError:
            raise
        except OSError:
            return False  # it has much to do, or the machine no room
        return True

    def _start(self) -> None:
        self._reap()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ended = self._loop.create_future()
        with theirs:
            try:
                ours.setblocking(False)
                self._loop.add_reader(ours, self._at_end_of_file, ours, ended)
                pid = self._program.spawn(["zygote"], {}, {_SOCKET_FD: theirs.fileno(), _ENDINGS_FD: self._endings})
            except BaseException:
                self._loop.remove_reader(ours)
                ours.close()
                raise
        self._socket, self.ended = ours, ended
        self._children.append(pid)

    def _at_end_of_file(self, ours: socket.socket, ended: asyncio.Future[None]) -> None:
        """It never writes: this is its end."""
        self._loop.remove_reader(ours)
        ours.close()
        if self._socket is ours:
            self._socket = None
        ended.set_result(None)

    def _reap(self) -> None:
        """Those that had no more than their end before them when they were last seen."""
        self._children = [pid for pid in self._children if not _is_reaped(pid)]


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _message(words: Sequence[str], env: Mapping[str, str]) -> bytes | None:
    """None where it is more than the zygote takes."""
    if len(words) + len(env) > _MOST_STRINGS:
        return None
    strings = (*words, *map("=".join, env.items()), "")
    text = os.fsencode("\0".join(strings))
    if _HEADER.size + len(text) > _MOST_BYTES:
        return None
    return _HEADER.pack(len(words), len(env)) + text
