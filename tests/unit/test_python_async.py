"""AsyncClient on a real Unix socket, at whose other end the test says what comes and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import make_job
from workerctl import AsyncClient, errors
from workerctl.api import asyncwire
from workerd import fdpass, protocol
from workerd.job import State


class Peer:
    """workerd's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""
        self.fds: list[int] = []

    async def request(self) -> tuple[int, str, Any]:
        """(id, method, params) of the next one."""
        while b"\n" not in self._rest:
            data, fds = await asyncio.to_thread(fdpass.receive, self.sock, 1 << 16, 16)
            assert data, "the client hung up"
            self._rest += data
            self.fds += fds
        line, _, self._rest = self._rest.partition(b"\n")
        request = protocol.decode_request(line)
        assert isinstance(request.id, int)
        return request.id, request.method, protocol.decode_params(request)

    def answer(self, number: int, result: Any, fds: tuple[int, ...] = ()) -> None:
        line = protocol.encode_result(number, result)
        self.sock.sendall(line[fdpass.send(self.sock, line, fds) :])

    async def hung_up(self) -> bool:
        return await asyncio.to_thread(self.sock.recv, 1) == b""

    def close(self) -> None:
        self.sock.close()
        fdpass.close_all(self.fds)


class Listener:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.peers: list[Peer] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(self.path)
        self._sock.listen()

    async def accept(self) -> Peer:
        sock, _ = await asyncio.to_thread(self._sock.accept)
        self.peers.append(Peer(sock))
        return self.peers[-1]

    def close(self) -> None:
        self._sock.close()
        for peer in self.peers:
            peer.close()


Story = Callable[[AsyncClient, Peer, Listener], Awaitable[None]]


def play(tmp_path: Path, story: Story, patience: float = 0.0) -> None:
    """With a client that is connected; afterwards no descriptor may be left."""

    async def main() -> None:
        async with ends(Listener(tmp_path / "sock")) as listener:
            accepted = asyncio.create_task(listener.accept())
            async with AsyncClient(listener.path, patience=patience) as client:
                await story(client, await accepted, listener)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(asyncio.wait_for(main(), 30))
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.asynccontextmanager
async def ends(listener: Listener) -> AsyncIterator[Listener]:
    try:
        yield listener
    finally:
        listener.close()


def opened(name: str) -> protocol.OutputOpenResult:
    return protocol.OutputOpenResult(name, 0, 0, True)


def two_files(tmp_path: Path, name: str) -> tuple[int, int]:
    found = []
    for part in ("log", "index"):
        (tmp_path / f"{name}.{part}").write_text(f"{name} {part}")
        found.append(os.open(tmp_path / f"{name}.{part}", os.O_RDONLY))
    return found[0], found[1]


class TestAnswers:
    def test_in_any_order_go_to_whom_they_are_for(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            calls = [asyncio.create_task(client.status(name)) for name in ("first", "second", "third")]
            asked = [await peer.request() for _ in calls]
            for number, _, params in reversed(asked):
                peer.answer(number, make_job(id=params.id))
            assert [(await call).id for call in calls] == ["first", "second", "third"]

        play(tmp_path, story)

    def test_glued_together_keep_their_descriptors(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            calls = [asyncio.create_task(client.open_output(name)) for name in "ab"]
            plain = asyncio.create_task(client.status("c"))
            numbers = {params.id: number for number, _, params in [await peer.request() for _ in range(3)]}
            for name in ("b", "c", "a"):
                if name == "c":
                    peer.answer(numbers[name], make_job(id=name))
                    continue
                fds = two_files(tmp_path, name)
                peer.answer(numbers[name], opened(name), fds)
                fdpass.close_all(fds)
            assert (await plain).id == "c"
            for name, call in zip("ab", calls, strict=True):
                with await call as log:
                    assert os.read(log.log_fd, 100) == f"{name} log".encode()
                    assert os.read(log.index_fd, 100) == f"{name} index".encode()

        play(tmp_path, story)

    def test_may_be_errors(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            call = asyncio.create_task(client.status("x"))
            number, _, _ = await peer.request()
            peer.sock.sendall(protocol.encode_error(number, errors.AmbiguousId("two of them")))
            with pytest.raises(errors.AmbiguousId, match="two of them"):
                await call

        play(tmp_path, story)

    @pytest.mark.parametrize("line", [b"nonsense\n", b'{"id":99,"result":{}}\n', b'{"id":1}\n'])
    def test_that_are_none_end_the_connection(self, tmp_path: Path, line: bytes) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            calls = [asyncio.create_task(client.status(name)) for name in "ab"]
            for _ in calls:
                await peer.request()
            peer.sock.sendall(line)
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, errors.ConnectionFailed)
            assert await peer.hung_up()

        play(tmp_path, story)

    def test_to_nothing_in_particular_tell_all(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            call = asyncio.create_task(client.status("x"))
            await peer.request()
            peer.sock.sendall(protocol.encode_error(None, errors.ParseError("too slow")))
            with pytest.raises(errors.ConnectionFailed, match="too slow"):
                await call

        play(tmp_path, story)


class TestCancellation:
    def test_of_a_call_under_way_throws_its_answer_and_descriptors_away(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            call = asyncio.create_task(client.open_output("a"))
            number, _, _ = await peer.request()
            call.cancel()
            assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
            fds = two_files(tmp_path, "a")
            peer.answer(number, opened("a"), fds)
            fdpass.close_all(fds)
            after = asyncio.create_task(client.status("b"))
            number, _, _ = await peer.request()
            peer.answer(number, make_job(id="b"))
            assert (await after).id == "b"

        play(tmp_path, story)

    def test_just_when_the_answer_is_there_closes_its_descriptors(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            call = asyncio.create_task(client.open_output("a"))
            number, _, _ = await peer.request()
            fds = two_files(tmp_path, "a")
            peer.answer(number, opened("a"), fds)
            fdpass.close_all(fds)
            (connection,) = client._connections
            connection._readable()  # taken, and the call not resumed yet
            call.cancel()
            assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)

        play(tmp_path, story)

    def test_of_what_was_not_sent_yet_sends_nothing_and_frees_its_descriptor(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            filling = [asyncio.create_task(client.run(["true"], env={"X": "x" * 200_000})) for _ in range(3)]
            await asyncio.sleep(0)
            last = asyncio.create_task(client.run(["never"], stdin=b"never"))
            for _ in range(5):
                await asyncio.sleep(0)
            last.cancel()
            await asyncio.gather(last, return_exceptions=True)
            seen = []
            for _ in filling:
                number, _, params = await peer.request()
                seen.append(params.spec.argv[0])
                peer.answer(number, protocol.RunResult("x", State.RUNNING))
            await asyncio.gather(*filling)
            assert seen == ["true"] * 3 and not peer.fds

        play(tmp_path, story)

    def test_of_many_waits_lets_workerd_forget_them(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            await cancelled_waits(client, peer)
            assert await peer.hung_up()
            await answered(client, await accepted_by(client, listener))

        play(tmp_path, story)


    def test_of_many_waits_moves_those_that_are_left_to_another_connection(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            kept = asyncio.create_task(client.wait("kept", timeout=1000))
            deed = asyncio.create_task(client.status("deed"))
            asked = {params.id: number for number, method, params in [await peer.request() for _ in range(2)]
                     if method == "job.status"}  # fmt: skip
            await cancelled_waits(client, peer)
            assert not kept.done()  # the deed's answer is still to come
            peer.answer(asked["deed"], make_job(id="deed"))
            assert (await deed).id == "deed"
            assert await peer.hung_up()
            second = await listener.accept()
            number, _, params = await second.request()
            assert params.ids == ("kept",) and 900_000_000 < params.timeout <= 1_000_000_000
            second.answer(number, protocol.WaitResult((make_job(id="kept"),)))
            assert (await kept).id == "kept"

        play(tmp_path, story)

    def test_of_a_few_waits_keeps_the_connection(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            numbers = await cancelled_waits(client, peer, asyncwire.MOST_ABANDONED - 1)
            for number in numbers:
                peer.answer(number, protocol.WaitResult((make_job(),)))
            await answered(client, peer)
            await cancelled_waits(client, peer, asyncwire.MOST_ABANDONED - 1)
            await answered(client, peer)

        play(tmp_path, story)


async def cancelled_waits(client: AsyncClient, peer: Peer, count: int = asyncwire.MOST_ABANDONED) -> list[int]:
    """Their numbers."""
    calls = [asyncio.create_task(client.wait("x")) for _ in range(count)]
    numbers = [(await peer.request())[0] for _ in calls]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    return numbers


async def accepted_by(client: AsyncClient, listener: Listener) -> Peer:
    """The client's next connection, which it makes at its next call."""
    made = asyncio.create_task(client._connection())
    peer = await listener.accept()
    await made
    return peer


async def answered(client: AsyncClient, peer: Peer) -> None:
    call = asyncio.create_task(client.status("x"))
    number, _, _ = await peer.request()
    peer.answer(number, make_job(id="x"))
    assert (await call).id == "x"


class TestPressure:
    def test_where_nobody_reads_callers_wait_and_memory_does_not_grow(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            size = 100_000
            calls = [asyncio.create_task(client.run(["true"], env={"X": "x" * size})) for _ in range(100)]
            for _ in range(10):
                await asyncio.sleep(0)
            (connection,) = client._connections
            assert connection._waiting_bytes <= asyncwire.ROOM + size + 1000
            for _ in calls:
                number, _, _ = await peer.request()
                peer.answer(number, protocol.RunResult(str(number), State.RUNNING))
            assert len({(await call).id for call in calls}) == 100

        play(tmp_path, story)

    def test_more_calls_than_one_connection_takes_open_another(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            waits = [asyncio.create_task(client.wait("x")) for _ in range(asyncwire.MOST_UNDER_WAY)]
            for _ in waits:
                await peer.request()
            await answered(client, await accepted_by(client, listener))
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

        play(tmp_path, story)

    def test_a_request_that_workerd_would_not_take_is_refused_here(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            with pytest.raises(errors.InvalidParams, match="bytes long"):
                await client.run(["true"], env={"X": "x" * (1 << 20)})
            await answered(client, peer)

        play(tmp_path, story)


class TestLoss:
    def test_is_told_to_all_and_the_next_call_connects_anew(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            calls = [asyncio.create_task(client.wait(name)) for name in "abc"]
            for _ in calls:
                await peer.request()
            peer.close()
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, errors.ConnectionFailed) and "jobs run on" in str(outcome)
            await answered(client, await accepted_by(client, listener))

        play(tmp_path, story)

    def test_with_patience_a_wait_is_asked_again_and_a_run_is_not(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, listener: Listener) -> None:
            wait = asyncio.create_task(client.wait("a"))
            run = asyncio.create_task(client.run(["true"]))
            assert {(await peer.request())[1] for _ in range(2)} == {"job.wait", "job.run"}
            peer.close()
            with pytest.raises(errors.ConnectionFailed):
                await run
            second = await listener.accept()
            number, method, params = await second.request()
            assert (method, params.ids) == ("job.wait", ("a",))
            second.answer(number, protocol.WaitResult((make_job(id="a"),)))
            assert (await wait).id == "a"

        play(tmp_path, story, patience=20)

    def test_of_our_own_doing_is_told_as_well(self, tmp_path: Path) -> None:
        async def story(client: AsyncClient, peer: Peer, _: Listener) -> None:
            call = asyncio.create_task(client.wait("a"))
            await peer.request()
            client.close()
            with pytest.raises(errors.ConnectionFailed, match="closed"):
                await call

        play(tmp_path, story)

    def test_nobody_there(self, tmp_path: Path) -> None:
        async def main() -> None:
            with pytest.raises(errors.NotRunning):
                await AsyncClient(str(tmp_path / "none")).info()

        asyncio.run(main())
