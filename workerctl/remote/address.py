"""What -H and WORKER_HOST may be: ssh://[USER@]HOST[:PORT][/SOCKET], or unix:///PATH for a
socket of this machine."""

from __future__ import annotations

import os

from workerctl.options import UsageError

FORMS = "write ssh://[USER@]HOST[:PORT][/SOCKET], or unix:///PATH for a socket of this machine"


class Address:
    """Where ssh is to go. `str()` is what people call it."""

    __slots__ = ("host", "port", "socket", "user")

    def __init__(
        self, host: str, user: str | None = None, port: int | None = None, socket: str | None = None
    ) -> None:  # fmt: skip
        self.host = host
        self.user = user
        self.port = port
        self.socket = socket
        """of workerd over there; None: the usual one"""

    def __str__(self) -> str:
        return (f"{self.user}@" if self.user else "") + self.host + (f":{self.port}" if self.port else "")


def settle(host: str, socket: str | None) -> None:
    """Puts the environment right for a command line whose machine is `host` and whose
    --socket, if any, is `socket`: $WORKER_HOST names both. Raises UsageError."""
    if host.startswith("unix://"):
        path = host.removeprefix("unix://")
        if not path.startswith("/"):
            raise UsageError(f"-H {host}: {FORMS}")
        os.environ["WORKERD_SOCKET"] = _one(host, path, socket)
        os.environ.pop("WORKER_HOST", None)
        return
    given = parse(host).socket
    if socket is not None and not socket.startswith("/"):
        raise UsageError(f"--socket {socket}: with -H it is a path on that machine, from / on")
    if socket is not None and given is None:
        host = host.removesuffix("/") + socket
    os.environ["WORKER_HOST"] = host
    _one(host, given, socket)


def _one(host: str, given: str | None, socket: str | None) -> str:
    if given is not None and socket not in (None, given):
        raise UsageError(f"-H {host} and --socket {socket} name two sockets: give one")
    return given or ""


def parse(text: str) -> Address:
    """Raises UsageError."""
    scheme, slashes, rest = text.partition("://")
    rest, slash, path = rest.partition("/")
    if scheme != "ssh" or not slashes:
        raise UsageError(f"-H {text}: {_near(text)}")
    user, at, place = rest.rpartition("@")
    if ":" in user:
        raise UsageError("-H ssh://USER:…: no password goes here; ssh asks for it, or takes a key")
    host, port = _split(place, text)
    # Either with a dash would be an option to ssh.
    wrong = not host or host.startswith("-") or user.startswith("-") or (at and not user)
    if wrong or any(char.isspace() or not char.isprintable() for char in rest):
        raise UsageError(f"-H {text}: {FORMS}")
    return Address(host, user or None, port, slash + path if path else None)


def _split(place: str, text: str) -> tuple[str, int | None]:
    host, bracket, port = place, "", ""
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UsageError(f"-H {text}: an IPv6 address is written ssh://[::1] or ssh://[::1]:22")
    elif ":" in place:
        host, _, port = place.partition(":")
        port = ":" + port
    if not port:
        return host, None
    digits = port[1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 6 and 0 < int(digits) < 65536):
        raise UsageError(f"-H {text}: a port is a number from 1 to 65535")
    return host, int(digits)


def _near(text: str) -> str:
    if text and "/" not in text:
        return f"write -H ssh://{text}"
    return FORMS
