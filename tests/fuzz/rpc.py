"""Fuzzes the RPC through a live socket, with hypothesis, as a user without rights.

    python -m tests.fuzz.rpc [REQUESTS [SEED]]     a million, unless told

hypothesis makes the first requests, and shrinks what fails; then these are cut up, damaged
and put together again, by the thousand a second.

What must hold for every input: workerd lives on and answers the next request; each line
of an answer is JSON-RPC; no answer is "internal error", and the log has no traceback.
An input that breaks this is printed.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, get_type_hints

import hypothesis
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host.daemon import Daemon, as_user, running
from workerd import errors, protocol
from workerd.job import JobSpec, Limits, Mount

NOBODY = 65534
TOKENS = [
    *b'{ } [ ] , : " \\ 1e9 -1 9999999999999999999999 null true NaN "id" "params" "fds":1 \\u0000 \\ud800'.split(),
    b'"jsonrpc":"2.0"',
    *(f'"{name}"'.encode() for name in protocol.METHODS),
]
LINES = 40
"""requests in one example"""
SENTINEL = b'{"jsonrpc":"2.0","id":"sentinel","method":"daemon.info"}\n'
CODES = {error.code for error in errors.BY_KIND.values()}
INTERNAL = errors.InternalError.code

_numbers = st.one_of(
    st.integers(-2, 70), st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63) - 1])
)
_text = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "/", "/tmp", "/proc/self/fd/3", "true", "0", "a\0", "..", "*", "%", "rw", "bind", "running"]),
)
_scalars = st.one_of(st.none(), st.booleans(), _numbers, st.floats(), _text)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_text, inner, max_size=4)),
    max_leaves=8,
)


def _fields(struct: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that look like this struct: its own fields, most with a value of a wrong kind."""
    hints = get_type_hints(struct)
    known = {name: _field(name) for name in hints}
    return st.fixed_dictionaries({}, optional={**known, "no_such_field": _scalars})


def _field(name: str) -> st.SearchStrategy[Any]:
    close: dict[str, st.SearchStrategy[Any]] = {
        "spec": st.deferred(lambda: _specs),
        "limits": st.deferred(lambda: _limits),
        "mounts": st.lists(st.deferred(lambda: _mounts), max_size=3),
        "argv": st.lists(_text, max_size=3),
        "ids": st.lists(_text, max_size=3),
        "env": st.dictionaries(_text, _text, max_size=3),
        "timeout": st.just(0),
    }
    return st.one_of(close.get(name, _scalars), _values)


_limits = _fields(Limits)
_mounts = _fields(Mount)
_specs = st.one_of(_fields(JobSpec), st.just({"argv": ["true"]}))
_params = {name: _fields(method.params) for name, method in protocol.METHODS.items()}


def _request(method: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": st.just(method), "params": _params[method]},
        optional={"id": st.one_of(st.integers(0, 9), _scalars), "extra": _scalars},
    )


_requests = st.sampled_from(sorted(protocol.METHODS)).flatmap(_request)
_plain = st.one_of(_requests, _requests, _requests, st.lists(_requests, max_size=4), _values)
_objects = _plain.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))


@st.composite
def _damaged(draw: Callable[..., Any]) -> bytes:
    """A request with some bytes of it replaced, taken out or put in."""
    line = bytearray(draw(_objects))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(line)))
        line[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(line)


lines = st.one_of(_objects, _objects, _damaged(), st.binary(max_size=40)).map(lambda line: line.replace(b"\n", b" "))


class Client:
    """A connection that is made anew where the daemon has ended it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.requests = 0
        self.answers = 0

    def send(self, batch: list[bytes]) -> None:
        """Raises AssertionError where an answer is not what it must be."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(60)
            self._socket.connect(self._path)
        self._socket.sendall(b"".join(line + b"\n" for line in batch) + SENTINEL)
        self.requests += len(batch)
        received = b""
        while b'"id":"sentinel"' not in received:
            piece = self._socket.recv(1 << 20)
            if not piece:
                self.close()
                raise AssertionError(f"the daemon hung up after {received[-300:]!r}")
            received += piece
        while not received.endswith(b"\n"):
            received += self._socket.recv(1 << 20)
        for line in received.splitlines():
            self._check(json.loads(line))

    def _check(self, answer: Any) -> None:
        for member in answer if isinstance(answer, list) else [answer]:
            self.answers += 1
            assert member["jsonrpc"] == "2.0", member
            assert ("result" in member) != ("error" in member), member
            if "error" in member:
                assert member["error"]["code"] in CODES - {INTERNAL}, member

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def shaped(client: Client, requests: int, seed: int) -> list[bytes]:
    """Sends what hypothesis makes; gives it back."""
    sent: list[bytes] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=requests,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @given(st.lists(lines, min_size=1, max_size=LINES))
    def one(batch: list[bytes]) -> None:
        if len(sent) < requests:
            client.send(batch)
            sent.extend(batch)

    one()
    return sent


def damaged(line: bytes, corpus: list[bytes], random: random.Random) -> bytes:
    """As a mutating fuzzer does it: bytes flipped, cut, doubled; two lines spliced."""
    data = bytearray(line)
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(data))
        length = random.randint(0, 12)
        match random.randint(0, 5):
            case 0:
                data[place : place + 1] = random.randbytes(1)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length] * random.randint(1, 3)
            case 3:
                other = random.choice(corpus)
                data[place:] = other[random.randint(0, len(other)) :]
            case 4:
                data[place:place] = random.choice(TOKENS)
            case 5:
                other = random.choice(corpus)
                at = random.randint(0, len(other))
                data[place : place + length] = other[at : at + length]
    return bytes(data[:60_000]).replace(b"\n", b" ")


def fuzz(path: str, requests: int, seed: int, first: int) -> tuple[int, int]:
    """(requests sent, answers checked); hypothesis makes `first` of them."""
    client = Client(path)
    corpus = shaped(client, first, seed)
    chance = random.Random(seed)
    while client.requests < requests:
        batch = [damaged(chance.choice(corpus), corpus, chance) for _ in range(4 * LINES)]
        try:
            client.send(batch)
        except AssertionError as error:
            raise AssertionError(f"{error}\nafter one of:\n" + "\n".join(map(repr, batch))) from error
    client.close()
    return client.requests, client.answers


def run(daemon: Daemon, requests: int, seed: int, first: int) -> tuple[int, int]:
    """Raises AssertionError, also where the daemon's log has a traceback."""
    counts: tuple[int, int] = as_user(NOBODY, fuzz, str(daemon.socket), requests, seed, first)
    log = daemon.log.read_text()
    assert "Traceback" not in log, log
    with daemon.client() as client:
        client.call("daemon.info", protocol.InfoParams())
    return counts


def main() -> int:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with running() as daemon:
        begun = time.monotonic()
        sent, answers = run(daemon, requests, seed, min(3000, requests // 10))
        print(f"{sent} requests, {answers} answers checked, {time.monotonic() - begun:.0f} s, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
