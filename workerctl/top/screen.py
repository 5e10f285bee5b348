"""Lines on a terminal, of which only those that changed are written: nothing flickers.

Within `with` the terminal shows its other screen, without a cursor; after it all is as
it was. One write for a frame, in a synchronized update where the terminal knows that.
"""

from __future__ import annotations

from workerctl import stdio
from workerctl.cells import columns

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    Line = tuple[str, str]
    """(text of at most the terminal's width, its style: bold, reverse, dim …)"""

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
STYLES = {"": "", "bold": "1", "dim": "2", "reverse": "7", "yellow": "33", "red": "31", "cyan": "36", "title": "1;7"}


class Screen:
    def __init__(self) -> None:
        self._shown: list[Line | None] = []

    def __enter__(self) -> Screen:
        stdio.put(ENTER)
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        stdio.put("\x1b[0m" + LEAVE)

    def forget(self) -> None:
        """What is on the terminal is not known: the next frame is written whole."""
        self._shown = []
        stdio.put("\x1b[0m\x1b[2J")

    def show(self, lines: Sequence[Line], width: int) -> None:
        parts = []
        for row, line in enumerate(lines):
            if row >= len(self._shown) or self._shown[row] != line:
                # After a full line the cursor stands on its last character, which would be erased.
                rest = "\x1b[K" if columns(line[0]) < width else ""
                parts.append(f"\x1b[{row + 1};1H{_styled(line)}{rest}")
        if len(lines) < len(self._shown):
            parts.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        self._shown = list(lines)
        if parts:
            stdio.put(BEGIN + "".join(parts) + END)


def _styled(line: Line) -> str:
    text, style = line
    # Reverse and bold are no colours: NO_COLOR leaves them.
    known = STYLES[style] if stdio.colour() or style in ("bold", "reverse", "title") else ""
    return f"\x1b[{known}m{text}\x1b[0m" if known else text
