"""Peers over real sockets, as the kernel tells of them, and what the policy gives them."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from workerd.auth import Peer, is_admin, may_connect, may_see, may_use_net, peer_of
from workerd.config import Policy
from workerd.job import Net

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def peer(uid: int, gid: int = 100, groups: Sequence[int] = ()) -> Peer:
    return Peer(uid=uid, gid=gid, groups=tuple(groups), pid=1)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """In a directory that every user may enter (pytest's own are closed to them)."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        os.chmod(directory, 0o755)  # noqa: S103
        listening.bind(str(Path(directory, "s")))
        os.chmod(listening.getsockname(), 0o666)  # noqa: S103
        listening.listen()
        listening.settimeout(10)
        yield listening


@contextmanager
def connected(listening: socket.socket, before: Callable[[], None], after: Callable[[], None]) -> Iterator[Peer]:
    """The peer that a child process is which did `before`, connected, and did `after`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            with socket.socket(socket.AF_UNIX) as ours:
                ours.connect(listening.getsockname())
                after()
                ours.send(b"x")
                ours.recv(1)
            code = 0
        finally:
            os._exit(code)
    try:
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(1) == b"x"
            yield peer_of(accepted)
    finally:
        _, status = os.waitpid(child, 0)
    assert status == 0


def become(uid: int, gid: int, groups: Sequence[int]) -> Callable[[], None]:
    def change() -> None:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    return change


def nothing() -> None:
    pass


class TestPeerOf:
    def test_a_socketpair_has_this_process_at_both_ends(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            expected = (os.geteuid(), os.getegid(), sorted(os.getgroups()), os.getpid())
            for end in (ours, theirs):
                found = peer_of(end)
                assert (found.uid, found.gid, sorted(found.groups), found.pid) == expected

    def test_a_connection_has_the_process_that_connected(self, listener: socket.socket) -> None:
        with connected(listener, nothing, nothing) as found:
            assert (found.uid, found.gid, sorted(found.groups)) == (os.geteuid(), os.getegid(), sorted(os.getgroups()))
            assert found.pid != os.getpid()

    @needs_root
    def test_another_user_has_their_own_ids(self, listener: socket.socket) -> None:
        with connected(listener, become(4001, 4002, [4003, 4004]), nothing) as found:
            assert (found.uid, found.gid, found.groups) == (4001, 4002, (4003, 4004))
            assert found.gids == {4002, 4003, 4004}

    @needs_root
    def test_a_user_without_supplementary_groups_has_none(self, listener: socket.socket) -> None:
        with connected(listener, become(4001, 4002, []), nothing) as found:
            assert found.groups == ()
            assert found.gids == {4002}

    @needs_root
    @pytest.mark.parametrize("count", [256, 257, 1000, 65_536])
    def test_all_groups_are_told_however_many(self, listener: socket.socket, count: int) -> None:
        """256 are what fits into Python's getsockopt, 65,536 what Linux allows."""
        groups = range(100_000, 100_000 + count)
        with connected(listener, become(4001, 4002, groups), nothing) as found:
            assert found.groups == tuple(groups)

    @needs_root
    @pytest.mark.parametrize("highest", [0x7FFFFFFF, 0x80000000, 0xFFFFFFFE])
    def test_large_ids_are_not_negative(self, listener: socket.socket, highest: int) -> None:
        with connected(listener, become(highest, highest, [highest]), nothing) as found:
            assert (found.uid, found.gid, found.groups) == (highest, highest, (highest,))

    @needs_root
    def test_ids_that_change_after_the_connection_change_nothing(self, listener: socket.socket) -> None:
        with connected(listener, become(0, 0, [7]), become(4001, 4002, [4003])) as found:
            assert (found.uid, found.gid, found.groups) == (0, 0, (7,))

    @needs_root
    def test_effective_ids_count_as_the_kernel_records_them(self, listener: socket.socket) -> None:
        with connected(listener, lambda: os.seteuid(4001), nothing) as found:
            assert found.uid == 4001

    def test_an_unconnected_socket_has_no_peer(self) -> None:
        with socket.socket(socket.AF_UNIX) as alone, pytest.raises(OSError):
            peer_of(alone)

    def test_an_internet_socket_has_no_peer(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            with pytest.raises(OSError):
                peer_of(client)


class TestIsAdmin:
    def test_root_is_one_without_being_named(self) -> None:
        assert is_admin(peer(0), Policy())

    def test_others_are_not(self) -> None:
        assert not is_admin(peer(1000, gid=0, groups=[0]), Policy())

    def test_whom_the_policy_names_is_one(self) -> None:
        policy = Policy(admins=frozenset({1000}))
        assert is_admin(peer(1000), policy)
        assert not is_admin(peer(1001), policy)


class TestMayConnect:
    def test_everybody_whom_the_socket_lets_in_where_nobody_is_named(self) -> None:
        assert may_connect(peer(1000), Policy())

    @pytest.mark.parametrize(
        ("who", "may"),
        [
            (peer(1000), True),
            (peer(1001), False),
            (peer(1001, gid=50), True),
            (peer(1001, groups=[49, 50]), True),
            (peer(1001, gid=1000, groups=[1000]), False),
            (peer(50), False),
            (peer(0), True),
            (peer(7), True),
        ],
    )
    def test_only_those_who_are_named_by_uid_or_by_any_group_and_admins(self, who: Peer, may: bool) -> None:
        policy = Policy(admins=frozenset({7}), connect_users=frozenset({1000}), connect_groups=frozenset({50}))
        assert may_connect(who, policy) is may

    def test_users_alone_close_it_to_all_groups(self) -> None:
        assert not may_connect(peer(1001), Policy(connect_users=frozenset({1000})))


class TestMaySee:
    def test_ones_own_jobs(self) -> None:
        assert may_see(peer(1000), 1000, Policy())

    def test_nobody_elses_in_the_same_group_either(self) -> None:
        assert not may_see(peer(1000, gid=0, groups=[1001]), 1001, Policy())
        assert not may_see(peer(1000), 0, Policy())

    def test_everybodys_as_an_admin(self) -> None:
        assert may_see(peer(0), 1001, Policy())
        assert may_see(peer(1000), 0, Policy(admins=frozenset({1000})))


class TestMayUseNet:
    def test_what_the_policy_names(self) -> None:
        assert [net for net in Net if may_use_net(peer(1000), net, Policy())] == [Net.NONE, Net.BRIDGE]
        assert not may_use_net(peer(1000), Net.BRIDGE, Policy(nets=frozenset({Net.NONE})))

    def test_every_mode_as_an_admin(self) -> None:
        assert all(may_use_net(peer(0), net, Policy(nets=frozenset())) for net in Net)
