"""Bytes that a terminal sends, as keys: `up`, `enter`, `escape`, or the character itself."""

from __future__ import annotations

NAMED = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1bOH": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"\x1bOF": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "ctrl-c",
    b"\x0c": "ctrl-l",
}
LONGEST = max(map(len, NAMED))


def keys_of(data: bytes) -> list[str]:
    """The keys of what one read gave; sequences that are not known are dropped whole."""
    found: list[str] = []
    place = 0
    while place < len(data):
        length = next((n for n in range(LONGEST, 0, -1) if data[place : place + n] in NAMED), 0)
        if length:
            found.append(NAMED[data[place : place + length]])
            place += length
        elif data[place] == 0x1B:
            end = _unknown_end(data, place)
            found += ["escape"] if end == place + 1 else []
            place = end
        else:
            length = _character(data[place])
            text = data[place : place + length].decode(errors="ignore")
            found += [text] if text.isprintable() and text else []
            place += length
    return found


def _unknown_end(data: bytes, place: int) -> int:
    """Past an escape sequence (ECMA-48), or past the escape alone."""
    if data[place + 1 : place + 2] not in (b"[", b"O"):
        return place + 1
    end = place + 2
    while end < len(data) and not 0x40 <= data[end] <= 0x7E:
        end += 1
    return end + 1


def _character(first: int) -> int:
    """Bytes of a UTF-8 character that begins so."""
    return 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2 if first >= 0xC0 else 1
