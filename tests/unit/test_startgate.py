"""The word to go, given in another thread than the loop's, and what is said before the command runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from workerd.jobfiles import OutputFiles, RuntimeFiles
from workerd.startgate import Gate, StatusPipe


@pytest.fixture
def gate() -> Iterator[Gate]:
    with contextlib.closing(Gate()) as made:
        yield made


@pytest.fixture
def waiting(gate: Gate) -> Iterator[socket.socket]:
    """The far end, as PID 1 has it."""
    with socket.socket(fileno=os.dup(gate.far_end)) as far:
        gate.close_far_end()
        far.setblocking(False)
        yield far


@pytest.fixture
def files() -> Iterator[tuple[OutputFiles, RuntimeFiles]]:
    fds = [os.memfd_create(str(number)) for number in range(4)]
    yield OutputFiles(*fds[:2]), RuntimeFiles(*fds[2:])
    for fd in fds:
        os.close(fd)


Files = tuple[OutputFiles, RuntimeFiles]


def said(far: socket.socket) -> int:
    """How many descriptors came with the word; BlockingIOError where it was not given."""
    text, fds, _, _ = socket.recv_fds(far, 16, 8)
    for fd in fds:
        os.close(fd)
    assert text == b"\n"
    return len(fds)


def in_another_thread(gate: Gate, files: Files) -> None:
    thread = threading.Thread(target=gate.open_early, args=files)
    thread.start()
    thread.join()


def test_who_has_announced_himself_goes(gate: Gate, waiting: socket.socket, files: Files) -> None:
    waiting.send(b"\0")
    in_another_thread(gate, files)
    assert gate.pid == os.getpid()
    assert not gate.stays_closed()
    assert said(waiting) == 4


def test_nobody_else_does(gate: Gate, waiting: socket.socket, files: Files) -> None:
    in_another_thread(gate, files)
    assert gate.stays_closed()
    with pytest.raises(BlockingIOError):
        said(waiting)


def test_nor_who_announces_himself_too_late(gate: Gate, waiting: socket.socket, files: Files) -> None:
    """Somebody has been told that it stays closed."""
    assert gate.stays_closed()
    waiting.send(b"\0")
    in_another_thread(gate, files)
    assert gate.stays_closed()
    with pytest.raises(BlockingIOError):
        said(waiting)
    gate.open(*files)
    assert said(waiting) == 4


def test_where_the_word_cannot_be_given_it_is_left_to_the_loop(
    gate: Gate, waiting: socket.socket, files: Files
) -> None:
    waiting.send(b"\0")
    in_another_thread(gate, (files[0], RuntimeFiles(-1, -1)))
    assert gate.stays_closed()
    gate.open(*files)
    assert said(waiting) == 4


def test_closed_it_gives_nothing_away(gate: Gate, waiting: socket.socket, files: Files) -> None:
    """Nor does it use descriptors that are another's by then."""
    waiting.send(b"\0")
    gate.close()
    in_another_thread(gate, files)
    assert gate.stays_closed()
    with pytest.raises(ConnectionResetError):  # what it was sent had not been read
        waiting.recv(1)
    assert waiting.recv(1) == b""


def test_whether_it_has_said_anything_takes_nothing_away() -> None:
    status = StatusPipe()
    assert not status.has_said()
    os.write(status.write_end, b"pid 100\n")
    assert status.has_said()
    assert select.select([status.read_end], [], [], 0)[0]
    assert status.read() is False
    assert status.has_said()
    status.close_write_end()
    assert status.read() is True
    assert status.text == b"pid 100\n"
    status.close()
    assert status.has_said()


def test_who_waits_twice_has_it_watched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll_ctl(2) that did not let go of it would not take it again."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        add, watched = loop.add_reader, []

        def noted(fd: int, callback: Callable[[], None]) -> None:
            watched.append(fd)
            add(fd, callback)

        monkeypatch.setattr(loop, "add_reader", noted)
        with contextlib.closing(StatusPipe()) as status:
            told = asyncio.ensure_future(status.wait(b"pid "))
            os.write(status.write_end, b"pi")
            await asyncio.sleep(0.02)
            assert not told.done()
            os.write(status.write_end, b"d 100\n")
            await told
            ended = asyncio.ensure_future(status.wait(None))
            await asyncio.sleep(0.02)
            assert not ended.done()
            status.close_write_end()
            await ended
            assert watched == [status.read_end]
            assert status.text == b"pid 100\n"
            assert not loop.remove_reader(status.read_end)

    asyncio.run(main())


def test_one_that_is_closed_is_asked_in_vain() -> None:
    """By who is told of the first stage's end in the same turn of the loop."""
    status = StatusPipe()
    status.close()
    assert status.has_said()
