"""What a stream of terminal output has switched on, so that it can be switched off again
when it is left in the middle, or on for somebody who comes in the middle.

Only the private modes that outlive the program's screen and trouble the next one
(xterm's ctlseqs, "DEC Private Mode Set"); everything else a redraw brings back.
"""

from __future__ import annotations

import re

ALTERNATE = ("1049", "1047", "47")
CURSOR = "25"
"""the only one that is on at first"""
KNOWN = {
    *ALTERNATE,
    CURSOR,
    "1",  # cursor keys as the application wants them
    "9", "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1015", "1016",  # the mouse, focus
    "2004",  # pasting in brackets
    "2026",  # drawing held back
}  # fmt: skip
SEQUENCE = re.compile(rb"\x1b\[\?([0-9;]*)([hl])|\x1b([=>])|\x1b(c)")
PARTIAL = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,32})?)?\Z")
PLAIN = b"\x1b(B\x0f\x1b[0m"
"""ASCII, no colours"""
WHOLE_SCREEN = b"\x1b7\x1b[r\x1b8"
"""no scrolling region, the cursor where it was"""


class Modes:
    def __init__(self) -> None:
        self._changed: dict[str, bool] = {}
        self._keypad = False
        self._rest = b""
        self.touched = False
        """whether anything but text came"""

    def feed(self, data: bytes) -> None:
        if not self._rest and b"\x1b" not in data:
            return
        self.touched = True
        data = self._rest + data
        for match in SEQUENCE.finditer(data):
            if match[4]:
                self._changed.clear()
                self._keypad = False
            elif match[3]:
                self._keypad = match[3] == b"="
            else:
                for name in match[1].decode().split(";"):
                    self._set(name, on=match[2] == b"h")
        partial = PARTIAL.search(data)
        self._rest = partial[0] if partial else b""

    def _set(self, name: str, *, on: bool) -> None:
        if name not in KNOWN:
            return
        if on == (name == CURSOR):
            self._changed.pop(name, None)
        else:
            self._changed[name] = on

    @property
    def full_screen(self) -> bool:
        return any(name in self._changed for name in ALTERNATE)

    def enter(self) -> bytes:
        """Brings a terminal that is as usual into these modes."""
        switched = b"".join(b"\x1b[?%s%s" % (name.encode(), b"h" if on else b"l") for name, on in self._changed.items())
        return switched + (b"\x1b=" if self._keypad else b"")

    def leave(self) -> bytes:
        """Brings a terminal in these modes back to the usual."""
        back = b"".join(
            b"\x1b[?%s%s" % (name.encode(), b"l" if on else b"h") for name, on in reversed(self._changed.items())
        )
        region = WHOLE_SCREEN if self.full_screen else b""
        return region + back + (b"\x1b>" if self._keypad else b"") + (PLAIN if self.touched else b"")
