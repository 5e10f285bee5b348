"""The near end of a link to another machine: one ssh, for all that a workerctl does there.

What must hold: it works in a signal handler too (see mux), and every way out leaves no
ssh behind.
"""

from __future__ import annotations

import json

from workerctl import threads
from workerctl.remote import frames
from workerctl.remote.address import Address, parse
from workerctl.remote.frames import Frame
from workerctl.remote.mux import Channel, Closed, Mux
from workerctl.remote.ssh import Ssh
from workerctl.remote.transport import FarTransport, error_of
from workerd import __version__
from workerd.errors import ConnectionFailed, HostUnreachable

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerd.errors import WorkerError
    from workerd.output import Log

_shared: dict[str, Link] = {}


def shared(host: str) -> Link:
    """The one link to it that this process has; it is closed at exit."""
    if host not in _shared:
        import atexit

        _shared[host] = link = Link(parse(host))
        atexit.register(link.close)
    return _shared[host]


class Link:
    """Raises HostUnreachable where nothing answers there that speaks as this does."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.terminals: dict[int, Channel] = {}
        """by descriptor of ours, what it stands for"""
        self._closing = False
        self._transports: set[FarTransport] = set()
        """those that are open"""
        self._ssh = Ssh(address)
        try:
            self.hello = self._greet()
        except BaseException:
            self._ssh.abandon()
            raise
        self._ssh.talk()
        self.mux = Mux(self._ssh.reading, self._ssh.writing, 1, lambda _: None, self._ended)
        self.mux.post(Frame(frames.HELLO, 0, json.dumps(_hello()).encode()))
        self.mux.begin()
        threads.begin(self.mux.read)

    def close(self) -> None:
        """What was said is still done. May be called again."""
        if not self._closing:
            self._closing = True
            self.mux.finish()
            self._ssh.end()
            for transport in tuple(self._transports):
                transport.hang_up()

    def renewed(self) -> Link:
        """Itself, or another one in its place where it is closed or lost."""
        return Link(self._address) if self._closing or self.lost() else self

    def transport(self, socket_path: str | None) -> FarTransport:
        made = FarTransport(self, socket_path or self._address.socket)
        self._transports.add(made)
        return made

    def let_go(self, transport: FarTransport) -> None:
        """It closes. May be called again."""
        self._transports.discard(transport)

    def find_log(self, job_id: str, socket_path: str | None) -> tuple[str, Log]:
        from workerctl.remote.farlog import FarLog

        log = FarLog(self, self.mux.open(kind="log", id=job_id, socket=socket_path))
        return log.job_id, log

    def error(self, closed: dict[str, Any] | None) -> WorkerError | None:
        """What a channel's CLOSE says; None where it says nothing."""
        return error_of(closed, str(self._address)) if closed else None

    def lost(self) -> WorkerError | None:
        """Why the whole link is gone; None while it is there."""
        return self.error(self.mux.own.closed)

    def answer(self, channel: Channel, number: int) -> memoryview:
        """Raises what is answered: OSError, or WorkerError."""
        try:
            kind, content = channel.take(number)
        except Closed:
            raise self.error(channel.closed) or ConnectionFailed(f"{self._address}: this was closed") from None
        if kind != frames.ERROR:
            return content
        error = json.loads(bytes(content))
        if "errno" in error:
            raise OSError(error["errno"], error["message"])
        raise error_of(error, str(self._address))

    def resize(self, fd: int, size: dict[str, int]) -> None:
        """Of the terminal over there that our descriptor stands for."""
        self.terminals[fd].post(frames.SIZE, json.dumps(size).encode())

    # ── the other machine itself, as its user sees it ──

    def directory(self) -> str:
        return str(self.hello["home"])

    def umask(self) -> int:
        return int(self.hello["umask"])

    def environment(self) -> dict[str, str]:
        """The few variables of a command's that are the machine's and the account's."""
        return dict(self.hello["env"])

    def real(self, path: str) -> str:
        """Absolute, from the home directory on, symbolic links resolved. Raises OSError."""
        return str(self._ask(what="real", path=path))

    def user_name(self, uid: int) -> str:
        return str(self._ask(what="user", uid=uid))

    def _ask(self, **question: Any) -> object:
        own = self.mux.own
        return json.loads(bytes(self.answer(own, own.ask(**question))))

    def _greet(self) -> dict[str, Any]:
        if frames.skip_preamble(self._ssh.reading) is None:
            raise self._ssh.failure()
        frame = frames.read(self._ssh.reading)
        if frame is None or frame.kind != frames.HELLO:
            raise self._ssh.failure()
        hello: dict[str, Any] = json.loads(frame.payload)
        if hello["protocol"] < frames.OLDEST:
            raise HostUnreachable(
                f"the workerctl on {self._address} ({hello['version']}) is too old for this one ({__version__}): "
                "upgrade worker there"
            )
        if hello["oldest"] > frames.PROTOCOL:
            raise HostUnreachable(
                f"this workerctl ({__version__}) is too old for the one on {self._address} ({hello['version']}): "
                "upgrade it here"
            )
        return hello

    def _ended(self) -> dict[str, Any]:
        if self._closing:
            return {}
        error = self._ssh.loss()
        return {"kind": error.kind, "message": str(error)}


def _hello() -> dict[str, Any]:
    return {"protocol": frames.PROTOCOL, "oldest": frames.OLDEST, "version": __version__}
