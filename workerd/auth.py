"""Who is at the other end of a connection, and what the policy lets them do.

A Peer is what the kernel recorded at connect(2) (unix(7), SO_PEERCRED; socket(7),
SO_PEERGROUPS): a process that changes its ids afterwards changes nothing here.
No decision rests on a pid or on a looked-up name.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import struct

from msgspec import Struct

from workerd.config import Policy
from workerd.job import Net

SO_PEERGROUPS = 59
"""asm-generic/socket.h; Python's socket module has no name for it"""
UCRED = struct.Struct("=iII")
"""pid, uid and gid, as the kernel tells them: struct ucred (unix(7))"""
_GID_SIZE = array.array("I").itemsize
_PYTHON_MAX = 1024
"""bytes that socket.getsockopt can ask for: 256 groups"""
_NGROUPS_MAX = 65_536
"""groups that a process can have (linux/limits.h)"""

_libc = ctypes.CDLL(None, use_errno=True)


def sender_of_next(sock: socket.socket, flags: int = 0) -> int:
    """The pid of who sent the next message, of a byte, as the kernel tells it (SCM_CREDENTIALS, unix(7)) of
    a socket with SO_PASSCRED; 0 where it does not. Raises OSError."""
    _, control, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(UCRED.size), flags)
    return next((UCRED.unpack(data)[0] for _, kind, data in control if kind == socket.SCM_CREDENTIALS), 0)


class Peer(Struct, frozen=True):
    """`groups` are the supplementary ones, as the kernel sorts them; `gid` need not be
    among them. `pid` is for the log only: it may be somebody else's by now."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    pid: int

    @property
    def gids(self) -> frozenset[int]:
        """All the groups that count."""
        return frozenset((self.gid, *self.groups))


def peer_of(sock: socket.socket) -> Peer:
    """The process that connected (of a socketpair: that made it). Raises OSError
    where `sock` is not a Unix stream socket with a peer."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    if uid == 0xFFFFFFFF:
        # What the kernel says of a socket that nobody is connected to.
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return Peer(uid=uid, gid=gid, groups=_peer_groups(sock), pid=pid)


def is_admin(peer: Peer, policy: Policy) -> bool:
    """Root, and whom the policy names."""
    return peer.uid == 0 or peer.uid in policy.admins


def may_connect(peer: Peer, policy: Policy) -> bool:
    """Admins always; others where the policy names them or one of their groups, or
    names nobody: then whoever the socket's mode lets in."""
    if is_admin(peer, policy) or not (policy.connect_users or policy.connect_groups):
        return True
    return peer.uid in policy.connect_users or not policy.connect_groups.isdisjoint(peer.gids)


def may_see(peer: Peer, job_uid: int, policy: Policy) -> bool:
    """Whether that user's jobs exist for this peer: to show, to read, to stop."""
    return peer.uid == job_uid or is_admin(peer, policy)


def may_use_net(peer: Peer, net: Net, policy: Policy) -> bool:
    """Admins may use every network mode, others those that the policy names."""
    return net in policy.nets or is_admin(peer, policy)


def _peer_groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _PYTHON_MAX)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raw = _peer_groups_large(sock)
    return tuple(array.array("I", raw))


def _peer_groups_large(sock: socket.socket) -> bytes:
    """The same without Python's limit on the answer's size. The first answer was
    ERANGE; the most that a process can have always fits."""
    buffer = ctypes.create_string_buffer(_NGROUPS_MAX * _GID_SIZE)
    length = ctypes.c_uint32(len(buffer))
    if _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"SO_PEERGROUPS: {os.strerror(code)}")
    return buffer.raw[: length.value]
