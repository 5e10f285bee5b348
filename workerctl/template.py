"""`--format TEMPLATE`: text with fields in braces, as `{id}\t{usage.memory_peak}`.

A field is a name, or names joined by dots, that leads through the JSON which `--json`
shows, and nothing else: no attributes, no calls, no indexing of Python's. After a
colon stands a width as in Python's format strings: `{id:<12}`, `{usage.cpu_usec:>10}`.
`{{` and `}}` are braces, `\\t`, `\\n`, `\\\\` what they are in C. What is not set is
empty; true and false are as in JSON, and so are lists and objects.
"""

from __future__ import annotations

from workerctl.options import UsageError, did_you_mean

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Derived = Mapping[str, Callable[[dict[str, Any]], object]]

ESCAPES = {"t": "\t", "n": "\n", "\\": "\\", "0": "\0"}
ALIGN = "<>^"
MOST_WIDTH = 1000


class Template:
    """Raises UsageError for what is no template; the fields are looked at in `fill`."""

    def __init__(self, text: str, derived: Derived | None = None) -> None:
        self._derived = derived or {}
        self._parts: list[tuple[str, str | None, str]] = list(_parts(text))
        """(text before it, field, its width)"""

    def fill(self, value: dict[str, Any], escape: Callable[[str], str]) -> str:
        """`escape` is done to what the fields give, not to the template's own text.
        Raises UsageError for a field that there is not."""
        done = ""
        for before, field, width in self._parts:
            done += before
            if field is not None:
                done += _aligned(escape(_text(self._find(field, value))), width)
        return done

    def _find(self, field: str, value: dict[str, Any]) -> object:
        if field in self._derived:
            return self._derived[field](value)
        found: object = value
        way = (f"spec.{field}" if field.startswith("labels.") else field).split(".")
        for place, name in enumerate(way):
            if found is None:
                return None
            if way[:place] == ["spec", "labels"] and isinstance(found, dict):
                return found.get(".".join(way[place:]))  # a label's key may have dots in it
            if not isinstance(found, dict):
                raise UsageError(f"--format: {'.'.join(way[:place])} has no fields")
            if name not in found:
                known = [*found, *(self._derived if place == 0 else ())]
                raise UsageError(f"--format: there is no field {{{field}}}{_instead(name, known)}")
            found = found[name]
        return found


def _instead(name: str, known: Iterable[str]) -> str:
    known = list(known)
    return did_you_mean(name, known) or f"; there are: {', '.join(sorted(known))}"


def _parts(text: str) -> Iterable[tuple[str, str | None, str]]:
    before, place = "", 0
    while place < len(text):
        char, after = text[place], text[place + 1 : place + 2]
        if char == "\\" and after in ESCAPES and after:
            before, place = before + ESCAPES[after], place + 2
        elif char in "{}" and after == char:
            before, place = before + char, place + 2
        elif char == "}":
            raise UsageError(f"--format {text!r}: a }} that closes nothing; a brace itself is }}}}")
        elif char == "{":
            end = text.find("}", place)
            if end < 0:
                raise UsageError(f"--format {text!r}: a {{ that is not closed; a brace itself is {{{{")
            name, _, width = text[place + 1 : end].partition(":")
            yield before, _name(name.strip().removeprefix("."), text), _width(width, text)
            before, place = "", end + 1
        else:
            before, place = before + char, place + 1
    yield before, None, ""


def _name(name: str, text: str) -> str:
    if not name or not all(char.isalnum() or char in "_.-/" for char in name):
        raise UsageError(f"--format {text!r}: {{{name}}} is no field; write one as {{id}} or {{usage.memory_peak}}")
    return name


def _width(width: str, text: str) -> str:
    digits = width.lstrip(ALIGN)
    if width and not (digits.isascii() and digits.isdecimal() and len(width) - len(digits) <= 1):
        raise UsageError(f"--format {text!r}: {width!r} is no width; write {{id:12}}, {{id:<12}} or {{id:>12}}")
    if digits and int(digits) > MOST_WIDTH:
        raise UsageError(f"--format {text!r}: a width is {MOST_WIDTH} at most")
    return width


def _aligned(text: str, width: str) -> str:
    """Filled up with spaces, by the columns that it takes on a terminal."""
    if not width:
        return text
    from workerctl.cells import columns

    missing = max(0, int(width.lstrip(ALIGN)) - columns(text))
    if width[0] == ">":
        return " " * missing + text
    left = missing // 2 if width[0] == "^" else 0
    return " " * left + text + " " * (missing - left)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    from workerctl import plainjson

    return plainjson.dumps(value).decode()
