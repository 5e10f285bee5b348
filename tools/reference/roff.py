"""Manual pages in the language of man(7), which both groff and mandoc read."""

from __future__ import annotations

from collections.abc import Iterable


class Page:
    """Lines of one page. Text given to it is text: nothing in it is taken for a request."""

    def __init__(self, name: str, section: int, date: str, version: str, manual: str) -> None:
        self._lines = [
            f".\\\" Made by `make man`: change {name}'s sources.",
            f'.TH {escaped(name.upper())} {section} "{date}" "worker {version}" "{manual}"',
        ]

    def section(self, title: str) -> None:
        self._lines.append(f".SH {escaped(title.upper())}")

    def part(self, title: str) -> None:
        self._lines.append(f'.SS "{escaped(title)}"')

    def paragraph(self, text: str) -> None:
        self._break()
        self._lines.append(_guarded(escaped(text)))

    def synopsis(self, command: str, rest: str = "") -> None:
        """A command as it is called: bold, and what follows it in italics."""
        self._lines.append(f"\\fB{escaped(command)}\\fR" + (f" \\fI{escaped(rest)}\\fR" if rest else ""))

    def item(self, term: str, text: str, *, bold: bool = True) -> None:
        """A term and, indented below it, what it means."""
        shown = f"\\fB{term}\\fR" if bold else term
        self._lines += [".TP", _guarded(shown), _guarded(escaped(text) or "\\&")]

    def verbatim(self, text: str) -> None:
        """As it stands, line by line."""
        lines = [_guarded(escaped(line)) for line in text.rstrip("\n").split("\n")]
        self._break()
        self._lines += [".nf", *(line or "\\&" for line in lines), ".fi"]

    def code(self, lines: Iterable[str]) -> None:
        """As typed, indented."""
        self._break()
        self._lines += [".RS 4", ".nf", *(_guarded(escaped(line)) for line in lines), ".fi", ".RE"]

    def _break(self) -> None:
        """A new paragraph, which a title begins by itself."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def escaped(text: str) -> str:
    """Backslashes and quotes as such, hyphens that can be copied, and ASCII alone."""
    done = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    done = done.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in done)


def option(flags: Iterable[str], metavar: str) -> str:
    """The term of an option: its flags bold, what it takes in italics."""
    shown = ", ".join(f"\\fB{escaped(flag)}\\fR" for flag in flags)
    return shown + (f" \\fI{escaped(metavar)}\\fR" if metavar else "")


def _guarded(line: str) -> str:
    """A dot at a line's beginning would be a request."""
    return f"\\&{line}" if line.startswith(".") else line
