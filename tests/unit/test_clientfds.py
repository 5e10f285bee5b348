"""Descriptors of clients, with files that do not answer."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from workerd import clientfds, passedfds
from workerd.clientfds import ClientFds
from workerd.errors import Exhausted, InvalidParams

ALICE, BOB = 1001, 1002


def lingering(listener: socket.socket) -> tuple[int, socket.socket]:
    """A descriptor that takes an hour to close, and the peer that does not read."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.listen()
    ours = socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.connect(listener.getsockname())
    theirs, _ = listener.accept()
    ours.setblocking(False)
    try:
        while True:
            ours.send(b"x" * 65536)
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    ours.setblocking(True)
    return ours.detach(), theirs


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


async def until_none(fds: ClientFds, uid: int) -> None:
    await asyncio.to_thread(until, lambda: fds.held(uid) == 0)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestClose:
    @in_a_loop
    async def test_one_that_takes_an_hour_is_closed_soon_and_nobody_waits(self, listener: socket.socket) -> None:
        fds = ClientFds(asyncio.get_running_loop())
        slow, peer = lingering(listener)
        read_end, write_end = os.pipe()
        with peer:
            begun = time.monotonic()
            fds.close(ALICE, (slow,))
            fds.close(BOB, (write_end,))
            assert time.monotonic() - begun < 20
            assert await asyncio.to_thread(os.read, read_end, 1) == b""
            await until_none(fds, ALICE)
            with pytest.raises(OSError):
                os.fstat(slow)
        os.close(read_end)
        fds.stop()

    @in_a_loop
    async def test_many_of_them_do_not_pile_up(self, listener: socket.socket) -> None:
        fds = ClientFds(asyncio.get_running_loop())
        count = 6 * clientfds._CROWDED
        pairs = [lingering(listener) for _ in range(count)]
        begun = time.monotonic()
        for fd, _ in pairs:
            fds.close(ALICE, (fd,))
        await until_none(fds, ALICE)
        one_by_one = count / clientfds._THREADS * clientfds._PATIENCE
        print(f"{time.monotonic() - begun:.1f} s for {count}")
        assert time.monotonic() - begun < one_by_one
        for _, peer in pairs:
            peer.close()
        fds.stop()

    @in_a_loop
    async def test_threads_end_when_there_is_nothing_to_do(self) -> None:
        fds = ClientFds(asyncio.get_running_loop())
        for _ in range(100):
            fds.close(ALICE, os.pipe())
        await until_none(fds, ALICE)
        await asyncio.to_thread(until, lambda: "client fds" not in [thread.name for thread in threading.enumerate()])
        fds.stop()


class TestCheck:
    @in_a_loop
    async def test_raises_what_is_wrong_with_it(self) -> None:
        fds = ClientFds(asyncio.get_running_loop())
        read_end, write_end = os.pipe()
        directory = os.open("/", os.O_RDONLY)
        await fds.check(ALICE, (read_end, write_end))
        with pytest.raises(InvalidParams, match="a directory"):
            await fds.check(ALICE, (read_end, directory))
        await until_none(fds, ALICE)
        for fd in (read_end, write_end, directory):
            os.close(fd)  # they stayed the caller's
        fds.stop()

    @in_a_loop
    async def test_a_file_that_does_not_answer_holds_up_its_user_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fds = ClientFds(asyncio.get_running_loop())
        answer = threading.Event()
        read_end, write_end = os.pipe()
        monkeypatch.setattr(clientfds, "CHECK_SECONDS", 0.05)
        real = passedfds.check
        monkeypatch.setattr(passedfds, "check", lambda _: void(answer.wait(60)))
        with pytest.raises(Exhausted, match="does not answer"):
            await fds.check(ALICE, (read_end,))
        monkeypatch.setattr(passedfds, "check", real)
        monkeypatch.setattr(clientfds, "CHECK_SECONDS", 30.0)
        await fds.check(BOB, (read_end,))
        answer.set()
        await until_none(fds, ALICE)
        os.close(read_end)
        os.close(write_end)
        fds.stop()


def void(_: object) -> None:
    return None
