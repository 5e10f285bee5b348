"""The word to go, given in another thread than the loop's, and what is said before it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from workerd.jobfiles import OutputFiles, RuntimeFiles
from workerd.startgate import Gate, StatusPipe


@pytest.fixture
def status() -> Iterator[StatusPipe]:
    with contextlib.closing(StatusPipe()) as made:
        yield made


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


def in_another_thread(gate: Gate, status: StatusPipe, files: Files) -> None:
    thread = threading.Thread(target=gate.open_early, args=(status, *files))
    thread.start()
    thread.join()


def test_a_pid_1_that_is_known_goes(status: StatusPipe, gate: Gate, waiting: socket.socket, files: Files) -> None:
    os.write(status.write_end, b"pid 100\n")
    in_another_thread(gate, status, files)
    assert gate.is_open
    assert said(waiting) == 4
    assert status.text == b"pid 100\n"


@pytest.mark.parametrize("text", [b"", b"pid 1", b"error exec 2 true\n", b"pid 100\nerror mask 1 /proc\n"])
def test_no_other_does(text: bytes, status: StatusPipe, gate: Gate, waiting: socket.socket, files: Files) -> None:
    """Of that nobody has said anything, or all of it, or it has failed."""
    if text:
        os.write(status.write_end, text)
    in_another_thread(gate, status, files)
    assert not gate.is_open
    with pytest.raises(BlockingIOError):
        said(waiting)
    assert status.text == text


def test_where_the_word_cannot_be_given_it_is_left_to_the_loop(
    status: StatusPipe, gate: Gate, waiting: socket.socket, files: Files
) -> None:
    os.write(status.write_end, b"pid 100\n")
    in_another_thread(gate, status, (files[0], RuntimeFiles(-1, -1)))
    assert not gate.is_open
    gate.open(*files)
    assert said(waiting) == 4


def test_closed_it_gives_none_away(status: StatusPipe, gate: Gate, waiting: socket.socket, files: Files) -> None:
    """Nor does it use descriptors that are another's by then."""
    os.write(status.write_end, b"pid 100\n")
    gate.close()
    in_another_thread(gate, status, files)
    assert not gate.is_open
    assert status.text == b""
    assert waiting.recv(1) == b""


def test_whether_it_has_said_anything_takes_nothing_away(status: StatusPipe) -> None:
    assert not status.has_said()
    os.write(status.write_end, b"pid 100\n")
    assert status.has_said()
    assert select.select([status.read_end], [], [], 0)[0]
    assert status.read() is False
    assert status.has_said()
    status.close_write_end()
    assert status.read() is True
    assert status.text == b"pid 100\n"
