"""Answers leave at once, together, in order, and not without their descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from workerd import fdpass, gate
from workerd.outbox import Outbox


def with_outbox(
    use: Callable[[Outbox, socket.socket], None],
    after: Callable[[socket.socket], None] = lambda peer: None,
    account: gate.Account | None = None,
) -> None:
    """`use` within one turn of the loop, `after` once that is over."""

    async def both() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            outbox = Outbox(asyncio.get_running_loop(), ours, account or gate.Account(0), lambda: None, lambda: None)
            use(outbox, theirs)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            after(theirs)
            outbox.close()

    asyncio.run(both())


def received(peer: socket.socket) -> list[bytes]:
    """Each packet is one system call of the sender's."""
    packets = []
    while True:
        try:
            packets.append(peer.recv(1 << 20))
        except BlockingIOError:
            return packets


class TestTurn:
    def test_the_first_leaves_at_once_the_others_together(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            for line in (b"1\n", b"2\n", b"3\n"):
                outbox.put(line, ())
            assert received(peer) == [b"1\n"]

        def after(peer: socket.socket) -> None:
            assert received(peer) == [b"2\n3\n"]

        with_outbox(use, after)

    def test_what_waits_for_the_end_of_the_turn_is_not_lost_by_hanging_up(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            outbox.put(b"1\n", ())
            outbox.put(b"2\n", ())
            outbox.close()
            assert received(peer) == [b"1\n", b"2\n"]

        with_outbox(use)

    def test_what_is_gathered_leaves_together(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            outbox.gather()
            for line in (b"1\n", b"2\n"):
                outbox.put(line, ())
            assert received(peer) == []
            outbox.send()
            assert received(peer) == [b"1\n2\n"]
            outbox.put(b"3\n", ())
            assert received(peer) == [b"3\n"]

        with_outbox(use)

    def test_more_than_one_call_takes_is_not_gathered(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            outbox.gather()
            outbox.put(b"1\n", ())
            outbox.put(b"x" * (64 << 10), ())
            assert [len(packet) for packet in received(peer)] == [2, 64 << 10]
            outbox.put(b"2\n", ())
            assert received(peer) == []
            outbox.send()
            assert received(peer) == [b"2\n"]

        with_outbox(use)

    def test_what_is_gathered_is_not_lost_by_hanging_up(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            outbox.gather()
            outbox.put(b"1\n", ())
            outbox.close()
            assert received(peer) == [b"1\n"]
            outbox.send()

        with_outbox(use)

    def test_descriptors_ride_on_their_own_answer(self) -> None:
        fd = os.open("/dev/null", os.O_RDONLY)

        def use(outbox: Outbox, peer: socket.socket) -> None:
            for line, fds in ((b"1\n", ()), (b"2\n", ()), (b"3\n", (fd,)), (b"4\n", ())):
                outbox.put(line, fds)

        def after(peer: socket.socket) -> None:
            assert [peer.recv(100), peer.recv(100)] == [b"1\n", b"2\n"]
            data, fds = fdpass.receive(peer, 100, 4)
            assert (data, len(fds)) == (b"3\n", 1)
            fdpass.close_all(fds)
            assert peer.recv(100) == b"4\n"

        with_outbox(use, after)


class TestCrowd:
    def test_few_answers_are_none(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            outbox.gather()
            assert not outbox.put(b"1\n", ())
            assert not outbox.crowded and not outbox.full

        with_outbox(use)

    def test_what_one_client_leaves_unread(self) -> None:
        def use(outbox: Outbox, peer: socket.socket) -> None:
            told = [outbox.put(b"x" * (32 << 10), ()) for _ in range(40)]
            assert not told[0]
            assert told[-1]
            assert outbox.crowded and not outbox.full

        with_outbox(use)

    def test_what_all_clients_of_a_user_leave_unread(self) -> None:
        account = gate.Account(0)

        def use(outbox: Outbox, peer: socket.socket) -> None:
            account.unsent = gate.MAX_UNSENT
            outbox.gather()
            assert outbox.put(b"1\n", ())
            assert outbox.full and not outbox.crowded

        with_outbox(use, account=account)
