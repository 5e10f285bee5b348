"""Lines out of pieces: each stream's own, with the time of its first byte, whole
however it came."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[int, int, bytes]
    """(stream, time in ns, bytes with the newline if there was one)"""

LONGEST = 1 << 20
"""bytes; what is longer is cut"""


class Lines:
    """What has begun and not ended is kept here, for each stream."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, list[bytes], int]] = {}

    def feed(self, stream: int, time: int, data: bytes) -> Iterator[Line]:
        """The lines that end within `data`."""
        for part in _split(data):
            began, parts, size = self._begun.pop(stream, (time, [], 0))
            parts.append(part)
            size += len(part)
            if part.endswith(b"\n") or size >= LONGEST:
                yield stream, began, b"".join(parts)
            else:
                self._begun[stream] = (began, parts, size)

    def rest(self) -> Iterator[Line]:
        """What never got its newline, by time."""
        for stream, (began, parts, _) in sorted(self._begun.items(), key=lambda item: item[1][0]):
            yield stream, began, b"".join(parts)
        self._begun.clear()

    def unfinished(self, stream: int) -> bytes:
        """What there is of a stream's line that has not ended."""
        return b"".join(self._begun[stream][1]) if stream in self._begun else b""


def _split(data: bytes) -> list[bytes]:
    """At newlines alone: bytes.splitlines takes carriage returns too."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]
