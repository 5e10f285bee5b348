"""What a person has chosen in `top`: order, filter, the selected job, a question asked.

Pure: a key changes it and may give an action, which is the loop's to do, upon `target`.
The selection is the first line until somebody moves it; then it is a job, and stays on
that when the order changes. What was asked about one job is never done to another.
"""

from __future__ import annotations

from workerctl.statstable import stall

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Row = dict[str, Any]
    """one of workerctl.rates, with `job` and `user` beside"""

SORTS: dict[str, tuple[str, Callable[[Row], Any], bool]] = {
    "c": ("CPU", lambda row: row["cpu_percent"] or 0, True),
    "m": ("memory", lambda row: row["memory"] or 0, True),
    "d": ("disks", lambda row: (row["read_bps"] or 0) + (row["write_bps"] or 0), True),
    "w": ("stalls", lambda row: stall(row) or 0, True),
    "a": ("age", lambda row: row["job"]["created"], False),
    "n": ("name", lambda row: (row["name"] or "\uffff", row["id"]), False),
}
"""key → (what it sorts by, of a row, whether the largest comes first)"""
QUESTIONS = {"s": ("stop", "stop job {}?"), "K": ("kill", "kill job {} at once?")}


class View:
    def __init__(self) -> None:
        self.sort = "c"
        self.reverse = False
        self.filter = ""
        self.typing = False
        """whether keys go into the filter"""
        self.asked: tuple[str, str] | None = None
        """(action, question), until it is answered"""
        self.help = False
        self.message = ""
        self.selected: str | None = None
        self.moved = False
        self.target: str | None = None
        """the job that the last action is meant for"""
        self.first = 0
        """the first row shown"""
        self.rows: list[Row] = []

    def feed(self, rows: Sequence[Row]) -> None:
        """A new sample."""
        _, key, largest = SORTS[self.sort]
        chosen = [row for row in rows if _matches(row, self.filter)]
        self.rows = sorted(sorted(chosen, key=lambda row: row["id"]), key=key, reverse=largest != self.reverse)
        ids = [row["id"] for row in self.rows]
        if not self.moved:
            self.selected = ids[0] if ids else None
        elif self.selected not in ids:
            self.selected = ids[min(self.first, len(ids) - 1)] if ids else None

    @property
    def place(self) -> int:
        """The selected row's; 0 where there is none."""
        return next((place for place, row in enumerate(self.rows) if row["id"] == self.selected), 0)

    def window(self, height: int) -> list[Row]:
        """The rows to show, the selected one among them."""
        place = self.place
        self.first = min(self.first, place, max(0, len(self.rows) - height))
        self.first = max(self.first, place - height + 1, 0)
        return self.rows[self.first : self.first + height]

    def key(self, key: str, height: int) -> str | None:
        """The action that the key asks for: quit, output, stop, kill, pause, redraw, resort; or None."""
        self.message = ""
        if key == "ctrl-c":
            return "quit"
        if self.asked is not None:
            return self._answer(key)
        if self.typing:
            return self._type(key)
        if self.help:
            self.help = False
            return None
        return self._command(key, height)

    def _answer(self, key: str) -> str | None:
        assert self.asked is not None
        action, self.asked = self.asked[0], None
        return action if key in ("y", "Y", "enter") else None

    def _type(self, key: str) -> str | None:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.filter = False, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and len(self.filter) < 60:
            self.filter += key
        return "resort"

    def _command(self, key: str, height: int) -> str | None:
        if key in SORTS:
            self.reverse = not self.reverse if key == self.sort else False
            self.sort, self.moved = key, False
            return "resort"
        if key in QUESTIONS and self.selected is not None:
            action, question = QUESTIONS[key]
            self.target, self.moved = self.selected, True
            self.asked = (action, question.format(self.selected))
        elif key == "/":
            self.typing = True
        elif key in ("h", "?"):
            self.help = True
        elif key == "escape":
            self.filter = ""
            return "resort"
        elif key in ("up", "down", "page-up", "page-down", "home", "end"):
            self._move(key, height)
        elif key in ("enter", "o", "p") and self.selected is not None:
            self.target, self.moved = self.selected, True
            return "pause" if key == "p" else "output"
        return {"q": "quit", "ctrl-l": "redraw", " ": "sample", "r": "sample"}.get(key)

    def _move(self, key: str, height: int) -> None:
        step = {"up": -1, "down": 1, "page-up": -height, "page-down": height, "home": -(10**9), "end": 10**9}[key]
        self.moved = key != "home"
        if self.rows:
            self.selected = self.rows[min(max(0, self.place + step), len(self.rows) - 1)]["id"]


def _matches(row: Row, text: str) -> bool:
    """Any word of it in the id, name, user, state or command."""
    if not text:
        return True
    job = row["job"]
    hay = " ".join((row["id"], row["name"] or "", row["user"], row["state"], *job["spec"]["argv"])).lower()
    return all(word in hay for word in text.lower().split())
