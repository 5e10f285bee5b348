"""The keys that leave a terminal without ending the job: Ctrl-P Ctrl-Q, unless said
otherwise (--detach-keys, $WORKERCTL_DETACH_KEYS).

A key that may begin the sequence is held back until the next one, or for a moment: so
Ctrl-P in a shell still goes one line up.
"""

from __future__ import annotations

import os

from workerctl.options import UsageError

DEFAULT = "ctrl-p,ctrl-q"
VARIABLE = "WORKERCTL_DETACH_KEYS"
HELD_SECONDS = 0.5
"""for which the beginning of the sequence waits for its rest"""
PUNCTUATION = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str | None) -> bytes:
    """`ctrl-p,ctrl-q`, `ctrl-x,d`; `none` for no way out. Raises UsageError."""
    where = "--detach-keys"
    if text is None:
        text, where = os.environ.get(VARIABLE) or DEFAULT, VARIABLE
    if text == "none":
        return b""
    return bytes(_key(name, text, where) for name in text.split(","))


def _key(name: str, text: str, where: str) -> int:
    if len(name) == 1 and name.isascii() and name.isprintable():
        return ord(name)
    head, char = name[:5].lower(), name[5:].lower()
    if head == "ctrl-" and len(char) == 1 and char.isascii() and char.isalpha():
        return ord(char) - ord("a") + 1
    if head == "ctrl-" and char in PUNCTUATION:
        return PUNCTUATION[char]
    raise UsageError(f"{where} {text}: write keys as ctrl-p,ctrl-q or ctrl-a,d; none for no such keys")


class Filter:
    """Takes what is typed; gives what is to be passed on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0
        """how many keys of the sequence were just typed, and are held back"""
        self.detached = False

    @property
    def holds(self) -> bool:
        return self._seen > 0

    def feed(self, data: bytes) -> bytes:
        """What goes on to the job, up to the detach keys."""
        passed = bytearray()
        for byte in data:
            while self._seen and byte != self._keys[self._seen]:
                # Not the sequence: its first held key goes on, the rest may begin it anew.
                passed += self._shift()
            if self._keys and byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    self.detached = True
                    break
            else:
                passed.append(byte)
        return bytes(passed)

    def release(self) -> bytes:
        """The rest of the sequence did not come in time."""
        held, self._seen = self._keys[: self._seen], 0
        return held

    def _shift(self) -> bytes:
        held = self._keys[: self._seen]
        for length in range(self._seen - 1, -1, -1):
            if held[self._seen - length :] == self._keys[:length]:
                passed = held[: self._seen - length]
                self._seen = length
                return passed
        raise AssertionError("an empty prefix always fits")
