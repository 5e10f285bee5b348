"""Where epoll_ctl(2) fails, a client is told and let go: it never waits for ever."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket

import pytest

from workerd.auth import Peer
from workerd.clientfds import ClientFds
from workerd.connection import READ_SIZE, Connection
from workerd.gate import Account
from workerd.outbox import Outbox
from workerd.service import Handler, QuickHandler


class Owner:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks = tasks
        self.handlers: dict[str, Handler] = {}
        self.quick: dict[str, QuickHandler] = {}
        self.client_fds = ClientFds(self.loop)
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.idle = True
        self.forgotten = 0

    def enqueue(self, connection: Connection) -> None:
        raise AssertionError("nothing was sent")

    def forget(self, connection: Connection) -> None:
        self.forgotten += 1

    def settle(self, account: Account) -> None:
        raise AssertionError("nothing was asked")


def test_a_connection_that_cannot_be_read_is_told_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(10)
        async with asyncio.TaskGroup() as tasks:
            owner = Owner(tasks)
            connection = Connection(owner, ours, Peer(0, 0, (0,), os.getpid()), Account(0))

            def fails(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(owner.loop, "add_reader", fails)
            connection.start()
            monkeypatch.undo()
        with theirs, theirs.makefile("rb") as answers:
            said = json.loads(answers.readline())
            assert said["error"]["data"]["kind"] == "exhausted" and "try again" in said["error"]["message"]
            assert answers.read() == b""
        assert owner.forgotten == 1

    asyncio.run(main())


def test_an_answer_for_whose_way_nobody_would_wake_us_is_no_answer_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        broken: list[bool] = []
        box = Outbox(asyncio.get_running_loop(), ours, Account(0), lambda: None, lambda: broken.append(True))

        def fails(*_: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        monkeypatch.setattr(asyncio.get_running_loop(), "add_writer", fails)
        box.put(b"x" * (4 << 20), ())
        assert broken == [True]
        monkeypatch.undo()
        box.close()
        ours.close()
        theirs.close()

    asyncio.run(main())
