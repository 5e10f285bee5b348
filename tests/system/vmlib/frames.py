"""The wire between host and guest agent: one definition, used by both ends.

This file is also copied into the image, beside the agent, so it imports
nothing but the cheapest of the standard library.

A frame is a header (type, command id, payload length; big endian) and a
payload of at most MAX_PAYLOAD bytes. All commands share one stream; the id
says which one a frame belongs to. The stream starts afresh with each start of
qemu, and the guest's first frame is HELLO.

Output needs no flow control (the host always reads). Input has it: the host
keeps at most STDIN_WINDOW bytes of a command's stdin unacknowledged, so a
command that does not read cannot fill the agent's memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PORT_NAME = "worker.agent"

HEADER = struct.Struct(">BII")
MAX_PAYLOAD = 64 * 1024
STDIN_WINDOW = 1024 * 1024

# Host to guest.
START = 1  # JSON: argv, env, cwd, user, timeout (seconds or null)
STDIN = 2  # bytes
STDIN_CLOSE = 3  # empty
SIGNAL = 4  # one byte: the signal's number, sent to the command's process group

# Guest to host.
HELLO = 16  # JSON: boot_id
STDOUT = 17  # bytes
STDERR = 18  # bytes
EXIT = 19  # JSON: code (negative: minus the signal), timed_out
STDIN_DONE = 20  # four bytes, big endian: bytes of stdin taken since the last one

TYPES = frozenset({START, STDIN, STDIN_CLOSE, SIGNAL, HELLO, STDOUT, STDERR, EXIT, STDIN_DONE})


class BadFrame(Exception):
    """The stream is not made of frames: the two ends have lost each other."""


def encode(kind: int, ident: int, payload: bytes = b"") -> bytes:
    """One frame as bytes; the payload must be no longer than MAX_PAYLOAD."""
    if len(payload) > MAX_PAYLOAD:
        raise BadFrame(f"payload of {len(payload)} bytes")
    return HEADER.pack(kind, ident, len(payload)) + payload


class Decoder:
    """Cuts a byte stream into frames, whatever the sizes it arrives in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield each frame that `data` completes; raises BadFrame."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, ident, length = HEADER.unpack_from(self._buffer)
            if kind not in TYPES or length > MAX_PAYLOAD:
                raise BadFrame(f"type {kind}, length {length}")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind, ident, payload
