"""Making text that a job or a user chose harmless on a terminal.

Whatever could move the cursor, change the terminal, reorder what is read or break
a line is shown as an escape (\\x1b, \\u202e) instead. `visible` is for one line of
ours with such text in it, `Painter` for a stream of output, where newlines and
tabs stay.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    import codecs

NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Not printable by Python's rule, yet only ink or its absence: joiners that scripts
# and emoji need, spaces, and the private use area of icon fonts.
HARMLESS = {"\u00a0", "\u00ad", "\u200c", "\u200d", "\u202f", "\u205f", "\u3000", *map(chr, range(0x2000, 0x200B))}
RED, RESET = "\x1b[31m", "\x1b[0m"
PRIVATE_USE = ("\ue000", "\uf8ff")


def escaped(char: str) -> str:
    code = ord(char)
    if char in NAMED:
        return NAMED[char]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible(text: str) -> str:
    """Fit for one line: nothing but printable characters, which the terminal has, too:
    what it lacks is an escape before anything is laid out, not only when it is written."""
    if text.isprintable() and (text.isascii() or _has_unicode()):
        return text
    unicode = _has_unicode()
    return "".join(char if char.isprintable() and (unicode or char.isascii()) else escaped(char) for char in text)


def _has_unicode() -> bool:
    from workerctl import stdio

    return stdio.is_unicode()


def visible_lines(text: str) -> str:
    """As `visible`, but newlines, tabs and harmless spaces stay."""
    if text.isprintable():
        return text
    return "".join(char if _stays(char) else escaped(char) for char in text)


def _stays(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or char in HARMLESS or PRIVATE_USE[0] <= char <= PRIVATE_USE[1]


def quoted(argv: list[str] | tuple[str, ...]) -> str:
    """A command as a person would type it into a shell; on one line."""
    return visible(" ".join(map(_word, argv)))


def _word(word: str) -> str:
    """shlex.quote, but readable where a word has apostrophes in it."""
    import shlex

    if "'" in word and not any(char in word for char in '"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)


class Painter:
    """A stream of output for a terminal: harmless, with stderr set apart in red.

    Characters may be cut between two pieces, so each stream has its own decoder. A
    carriage return before a newline, as every line from a terminal has, moves nothing.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._returns: dict[int, str] = {}
        """carriage returns that a newline may follow"""

    def paint(self, stream: int, data: bytes, *, final: bool = False) -> str:
        text = self._returns.pop(stream, "") + self._decoder(stream).decode(data, final)
        if text.endswith("\r") and not final:
            kept = text.rstrip("\r")
            self._returns[stream], text = text[len(kept) :], kept
        while "\r\n" in text:
            text = text.replace("\r\n", "\n")
        text = visible_lines(text)
        if stream == 2 and self._colour and text:
            # Line by line, so that what interrupts us leaves at most a line in red.
            return "\n".join(f"{RED}{line}{RESET}" if line else "" for line in text.split("\n"))
        return text

    def finish(self) -> str:
        """What is left of characters that never got their last byte."""
        return "".join(self.paint(stream, b"", final=True) for stream in list(self._decoders))

    def _decoder(self, stream: int) -> codecs.IncrementalDecoder:
        import codecs

        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        return self._decoders[stream]
