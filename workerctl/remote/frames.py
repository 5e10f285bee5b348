"""The frames between workerctl and `workerctl dial-stdio`. No I/O but reading one.

A frame is a type, a channel, a length (network byte order, 1 + 4 + 4 bytes) and so many
bytes. Before its first frame the far end writes MAGIC; what a login shell printed before
that is skipped. Both ends then say HELLO (JSON) on channel 0, which is the link's own.

    OPEN     JSON: a new channel and what it is; the near end's have odd numbers
    DATA     bytes of a stream; as many as the other end has granted
    CREDIT   one 32-bit word: so many bytes more may come
    EOF      no more DATA from this end
    CLOSE    the end of a channel, for both; JSON: the error that was the reason, or {}
    FDS      JSON: the channels that are descriptors which ride on the next byte of DATA
    ASK      a 32-bit number and JSON; one ANSWER has the same number
    ANSWER   the number, a byte (JSON, an error as JSON, or bytes) and that
    SIZE     JSON: rows and columns of the terminal that the channel is
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import IO

PROTOCOL = 1
"""the version that this end speaks"""
OLDEST = 1
"""the oldest that it still understands"""
MAGIC = b"\0worker dial-stdio\n"
MOST_PREAMBLE = 1 << 16
"""bytes that may come before MAGIC"""

HELLO, OPEN, DATA, CREDIT, EOF, CLOSE, FDS, ASK, ANSWER, SIZE = range(1, 11)
HEADER = struct.Struct("!BII")
WORD = struct.Struct("!I")
ANSWERED = struct.Struct("!IB")
BLOCK = struct.Struct("!Q")
JSON, ERROR, BYTES = 0, 1, 2
MOST_DATA = 1 << 16
"""bytes of one DATA frame, so that nothing waits long behind it"""
MOST_PAYLOAD = 1 << 21
WINDOW = 1 << 21
"""bytes of one stream that may be under way"""
SHORT_WINDOW = 1 << 16
"""the same where a person types and looks"""


class Broken(Exception):
    """The other end does not keep to this."""


class Frame:
    """`more` follows the payload, on a frame that is sent: kept apart, so that it is not
    copied."""

    __slots__ = ("channel", "kind", "more", "payload")

    def __init__(self, kind: int, channel: int, payload: bytes = b"", more: bytes | memoryview = b"") -> None:
        self.kind = kind
        self.channel = channel
        self.payload = payload
        self.more = more

    def encode(self) -> tuple[bytes, bytes | memoryview]:
        """One after the other."""
        length = len(self.payload) + len(self.more)
        return HEADER.pack(self.kind, self.channel, length) + self.payload, self.more


def read(file: IO[bytes]) -> Frame | None:
    """The next frame; None at the end, wherever in a frame that comes. Raises Broken."""
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    kind, channel, length = HEADER.unpack(header)
    if length > MOST_PAYLOAD or not HELLO <= kind <= SIZE:
        raise Broken(f"a frame of type {kind} with {length} bytes")
    payload = file.read(length)
    return Frame(kind, channel, payload) if len(payload) == length else None


def skip_preamble(file: IO[bytes]) -> bytes | None:
    """Reads up to and with MAGIC: what came before it; None where it does not come."""
    seen = bytearray()
    while not seen.endswith(MAGIC):
        byte = file.read(1)
        if not byte or len(seen) > MOST_PREAMBLE:
            return None
        seen += byte
    return bytes(seen[: -len(MAGIC)])
