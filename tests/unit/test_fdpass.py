"""Descriptors over real socketpairs: what arrives, and that nothing ever leaks."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workerd
from workerd import fdpass
from workerd.errors import InvalidRequest

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    fdpass.close_all(ends)


def open_fds() -> set[str]:
    listed = set(os.listdir("/proc/self/fd"))
    # One of them was the listing's own.
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}


@contextmanager
def no_leak() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


class TestSend:
    def test_without_fds_sends_the_bytes(self, pair: Pair) -> None:
        assert fdpass.send(pair[0], b"hello", []) == 5
        assert pair[1].recv(100) == b"hello"

    def test_fds_need_a_byte_to_ride_on(self, pair: Pair, pipe: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="byte"):
            fdpass.send(pair[0], b"", pipe)

    def test_a_bad_fd_is_an_os_error_and_sends_nothing(self, pair: Pair) -> None:
        pair[1].setblocking(False)
        with pytest.raises(OSError) as caught:
            fdpass.send(pair[0], b"x", [1 << 20])
        assert caught.value.errno == errno.EBADF
        with pytest.raises(BlockingIOError):
            pair[1].recv(1)

    def test_a_full_non_blocking_socket_takes_a_part_then_refuses(self, pair: Pair, pipe: tuple[int, int]) -> None:
        pair[0].setblocking(False)
        sent = fdpass.send(pair[0], b"x" * (8 << 20), [])
        assert 0 < sent < 8 << 20
        with pytest.raises(BlockingIOError):
            while True:
                fdpass.send(pair[0], b"x", pipe)

    def test_a_closed_peer_is_an_error_and_no_signal(self, pair: Pair) -> None:
        pair[1].close()
        before = signal.signal(signal.SIGPIPE, lambda *_: pytest.fail("SIGPIPE"))
        try:
            with pytest.raises(BrokenPipeError):
                fdpass.send(pair[0], b"x", [])
        finally:
            signal.signal(signal.SIGPIPE, before)


class TestReceive:
    def test_an_fd_arrives_that_can_be_read_through(self, pair: Pair, pipe: tuple[int, int]) -> None:
        assert fdpass.send(pair[0], b"take this", [pipe[0]]) == 9
        data, (fd,) = fdpass.receive(pair[1], 100, 1)
        try:
            os.write(pipe[1], b"through the pipe")
            assert data == b"take this"
            assert os.read(fd, 100) == b"through the pipe"
        finally:
            os.close(fd)

    def test_what_arrives_is_close_on_exec(self, pair: Pair, pipe: tuple[int, int]) -> None:
        fdpass.send(pair[0], b"x", pipe)
        _, fds = fdpass.receive(pair[1], 100, 2)
        try:
            assert [fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds] == [1, 1]
        finally:
            fdpass.close_all(fds)

    def test_fds_keep_their_order(self, pair: Pair, tmp_path: Path) -> None:
        sent = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(16)]
        fdpass.send(pair[0], b"x", sent)
        _, arrived = fdpass.receive(pair[1], 100, 16)
        try:
            assert [os.fstat(fd).st_ino for fd in arrived] == [os.fstat(fd).st_ino for fd in sent]
        finally:
            fdpass.close_all(sent + arrived)

    def test_fds_come_with_the_read_that_has_their_first_byte(self, pair: Pair, pipe: tuple[int, int]) -> None:
        fdpass.send(pair[0], b"first", [])
        fdpass.send(pair[0], b"second", pipe)
        fdpass.send(pair[0], b"third", [])
        reads: list[tuple[bytes, int]] = []
        while len(b"".join(data for data, _ in reads)) < len(b"firstsecondthird"):
            data, fds = fdpass.receive(pair[1], 100, 2)
            fdpass.close_all(fds)
            reads.append((data, len(fds)))
        assert b"".join(data for data, _ in reads) == b"firstsecondthird"
        assert [count for data, count in reads if b"second" in data] == [2]
        assert sum(count for _, count in reads) == 2

    def test_a_short_read_takes_the_fds_and_leaves_the_bytes(self, pair: Pair, pipe: tuple[int, int]) -> None:
        fdpass.send(pair[0], b"abc", pipe)
        data, fds = fdpass.receive(pair[1], 1, 2)
        fdpass.close_all(fds)
        assert (data, len(fds)) == (b"a", 2)
        assert fdpass.receive(pair[1], 100, 2) == (b"bc", [])

    def test_the_end_of_the_stream_is_empty(self, pair: Pair) -> None:
        pair[0].close()
        assert fdpass.receive(pair[1], 100, 4) == (b"", [])

    def test_nothing_there_on_a_non_blocking_socket_is_blocking_io_error(self, pair: Pair) -> None:
        pair[1].setblocking(False)
        with no_leak(), pytest.raises(BlockingIOError):
            fdpass.receive(pair[1], 100, 4)

    @pytest.mark.parametrize(("sent", "allowed"), [(1, 0), (2, 1), (3, 1), (3, 2), (17, 16), (253, 16), (253, 0)])
    def test_more_than_allowed_are_refused_and_all_closed(self, pair: Pair, sent: int, allowed: int) -> None:
        """An odd count fits one more in the rounded buffer, without MSG_CTRUNC."""
        fdpass.send(pair[0], b"x", [0] * sent)
        with no_leak(), pytest.raises(InvalidRequest):
            fdpass.receive(pair[1], 100, allowed)

    def test_without_a_limit_reached_nothing_is_refused(self, pair: Pair) -> None:
        fdpass.send(pair[0], b"x", [0] * 253)
        _, fds = fdpass.receive(pair[1], 100, 253)
        fdpass.close_all(fds)
        assert len(fds) == 253

    @pytest.mark.parametrize("room", [0, 1])
    def test_a_process_out_of_descriptors_refuses_and_leaks_none(self, pair: Pair, room: int) -> None:
        fdpass.send(pair[0], b"x", [0, 0, 0])
        with out_of_fds(room), pytest.raises(InvalidRequest):
            fdpass.receive(pair[1], 100, 8)
        with out_of_fds(room) as free:
            assert free() == room

    def test_other_ancillary_data_is_ignored(self, pair: Pair, pipe: tuple[int, int]) -> None:
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        fdpass.send(pair[0], b"x", [pipe[0]])
        data, fds = fdpass.receive(pair[1], 100, 16)
        fdpass.close_all(fds)
        assert (data, len(fds)) == (b"x", 1)


class TestCloseAll:
    def test_closes_the_rest_after_one_that_fails(self) -> None:
        ends = os.pipe()
        with no_leak_after(ends):
            fdpass.close_all([ends[0], ends[0], ends[1]])


class TestImport:
    def test_costs_neither_asyncio_nor_msgspec(self) -> None:
        code = "import sys, workerd.fdpass; print({'asyncio', 'msgspec', 'ctypes'} & set(sys.modules))"
        root = Path(workerd.__file__).parents[1]
        ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert ran.stdout == "set()\n"


@contextmanager
def no_leak_after(ends: tuple[int, int]) -> Iterator[None]:
    before = open_fds() - {str(end) for end in ends}
    yield
    assert open_fds() == before


@contextmanager
def out_of_fds(room: int) -> Iterator[Callable[[], int]]:
    """As a process that can have `room` more descriptors; gives a function that counts them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_fds())) + 8, hard))
    fillers: list[int] = []

    def fill() -> int:
        count = 0
        try:
            while True:
                fillers.append(os.dup(0))
                count += 1
        except OSError as error:
            assert error.errno == errno.EMFILE
        return count

    try:
        fill()
        for _ in range(room):
            os.close(fillers.pop())
        yield fill
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        fdpass.close_all(fillers)
