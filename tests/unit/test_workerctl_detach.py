"""Detach keys, and what a stream of terminal output has switched on."""

from __future__ import annotations

import pytest

from workerctl.detachkeys import Filter, parse
from workerctl.options import UsageError
from workerctl.termmodes import Modes


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "keys"),
        [("ctrl-p,ctrl-q", b"\x10\x11"), ("ctrl-A,d", b"\x01d"), ("ctrl-],ctrl-@", b"\x1d\x00"), ("none", b"")],
    )
    def test_are_read(self, text: str, keys: bytes) -> None:
        assert parse(text) == keys

    @pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-pp", "é", "ctrl-p ctrl-q", "ctrl-p,"])
    def test_what_is_none_is_refused_by_name(self, text: str) -> None:
        with pytest.raises(UsageError, match="--detach-keys"):
            parse(text)

    def test_the_environment_is_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKERCTL_DETACH_KEYS", "ctrl-x")
        assert parse(None) == b"\x18"


class TestFilter:
    @pytest.mark.parametrize("cut", range(1, 8))
    def test_however_it_is_cut_all_goes_on_but_the_sequence(self, cut: int) -> None:
        keys, typed = Filter(b"aab"), b"xaaaayaab later"
        passed = b"".join(keys.feed(typed[at : at + cut]) for at in range(0, len(typed), cut) if not keys.detached)
        assert (passed, keys.detached) == (b"xaaaay", True)

    def test_a_beginning_alone_is_held_until_it_is_released(self) -> None:
        keys = Filter(b"\x10\x11")
        assert keys.feed(b"a\x10") == b"a"
        assert keys.holds
        assert keys.release() == b"\x10"
        assert keys.feed(b"\x11") == b"\x11"
        assert not keys.detached

    def test_no_keys_hold_nothing(self) -> None:
        keys = Filter(b"")
        assert keys.feed(b"\x10\x11") == b"\x10\x11"


class TestModes:
    def test_what_is_switched_on_is_switched_off_again(self) -> None:
        modes = Modes()
        modes.feed(b"text \x1b[?1049h\x1b[?25l\x1b[?1;2004h\x1b=")
        assert modes.full_screen
        assert modes.enter() == b"\x1b[?1049h\x1b[?25l\x1b[?1h\x1b[?2004h\x1b="
        left = modes.leave()
        for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1l", b"\x1b[?2004l", b"\x1b>", b"\x1b[0m"):
            assert sequence in left

    @pytest.mark.parametrize("cut", range(1, 8))
    def test_sequences_are_seen_however_they_are_cut(self, cut: int) -> None:
        data = b"a\x1b[?1049hb\x1b[?2004hc\x1b[?1049l"
        modes = Modes()
        for at in range(0, len(data), cut):
            modes.feed(data[at : at + cut])
        assert modes.enter() == b"\x1b[?2004h"

    def test_plain_text_leaves_nothing_to_do(self) -> None:
        modes = Modes()
        modes.feed(b"plain\r\n")
        assert (modes.enter(), modes.leave()) == (b"", b"")
