"""Reading a TOML file so that every complaint names its line.

A `Document` holds the text beside what it says and gives its tables as Structs.
Values that people write with units, or as "unlimited", have types of their own
here, so that a wrong one is answered with what is accepted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from workerd.errors import ConfigError
from workerd.job import Limits
from workerd.units import DURATION_FORMS, MAX_SIZE, SIZE_FORMS, parse_duration, parse_size

T = TypeVar("T")
Keys = tuple[str | int, ...]
"""where a value is: names of tables, the key, a place in an array"""

UNLIMITED = 2**62
"""what the word "unlimited" becomes until the policy makes it None; exact as a float too"""
MAX_ID = 2**32 - 2
"""of a uid or gid; the next one means "none" (chown(2))"""
_WORD = "unlimited"


class Size(int):
    """Bytes, at least 1."""


class Swap(int):
    """Bytes."""


class Count(int):
    """A whole number."""


class Positive(int):
    """A whole number, at least 1."""


class Cpus(float):
    """CPUs' worth of time, more than 0."""


class Duration(int):
    """Microseconds."""


class CpuList(str):
    """CPUs by their numbers, such as 0-3,6."""

    __slots__ = ()


class Principal(str):
    """A user or group: its name, or its number in digits."""

    __slots__ = ()


class Document:
    """A TOML file. Raises ConfigError where it cannot be read or is no TOML, but
    FileNotFoundError where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = self._read()
        # TOML's own idea of a line; str.splitlines has more of them.
        self._lines = text.split("\n")
        try:
            self.data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._syntax_error(error) from error

    def convert(self, keys: Keys, data: object, into: type[T]) -> T:
        """`data`, the value at `keys`, as that type. Raises ConfigError."""
        try:
            return msgspec.convert(data, into, dec_hook=_read_value)
        except msgspec.ValidationError as error:
            inner, message = _explain(str(error), into)
            raise self.error((*keys, *inner), message) from error

    def error(self, keys: Keys, message: str) -> ConfigError:
        """A complaint about the value at `keys`."""
        return self._error(self.line(keys), f"{_dotted(keys)}: {message}" if keys else message)

    def line(self, keys: Keys) -> int:
        """Where the statement that gives `keys` its value begins, or the element where
        it is one of an array; 1-based, 0 where there is none.

        The parser says it: the shortest piece of the file that has the key ends
        with that statement, and no piece that ends within a statement can be parsed.
        """
        while keys and not _has(self.data, keys):
            keys = keys[:-1]
        if not keys:
            return 0
        absent, present = 0, len(self._lines)
        while present - absent > 1:
            middle = (absent + present) // 2
            end, data = self._piece(middle)
            absent, present = (absent, end) if _has(data, keys) else (middle, present)
        first = self._piece(present - 1)[0] + 1
        return self._element_line(keys, first, present)

    def _element_line(self, keys: Keys, first: int, last: int) -> int:
        if not any(isinstance(key, int) for key in keys):
            return first
        for end in range(first, last):
            data = _try_parse([*self._lines[:end], "]"])
            if data is not None and _has(data, keys):
                return end
        return first

    def _piece(self, end: int) -> tuple[int, dict[str, Any]]:
        """The longest parsable piece of at most `end` lines."""
        for length in range(end, 0, -1):
            data = _try_parse(self._lines[:length])
            if data is not None:
                return length, data
        return 0, {}

    def _read(self) -> str:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error(0, f"cannot be read: {error.strerror}") from error
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._error(raw.count(b"\n", 0, error.start) + 1, "not UTF-8, which TOML has to be") from error

    def _syntax_error(self, error: Exception) -> ConfigError:
        if isinstance(error, RecursionError):
            return self._error(0, "nested too deeply")
        place = re.search(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$", str(error))
        # At the end of the document it is the statement without an end that is meant.
        line = int(place[1]) if place and place[1] else min(self._piece(len(self._lines))[0] + 1, len(self._lines))
        return self._error(line, f"not TOML: {str(error)[: place.start()] if place else error}")

    def _error(self, line: int, message: str) -> ConfigError:
        where = f"{self.path}:{line}" if line else f"{self.path}"
        return ConfigError(f"{where}: {message}", path=str(self.path), line=line)


def _try_parse(lines: list[str]) -> dict[str, Any] | None:
    try:
        # Each with its end: what is left of a CR LF alone is not TOML.
        return tomllib.loads("".join(f"{line}\n" for line in lines))
    except (ValueError, RecursionError):
        return None


def _has(data: Any, keys: Keys) -> bool:
    for key in keys:
        if isinstance(key, int):
            found = isinstance(data, list) and key < len(data)
        else:
            found = isinstance(data, dict) and key in data
        if not found:
            return False
        data = data[key]
    return True


def _dotted(keys: Keys) -> str:
    text = ""
    for key in keys:
        text += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_INVALID = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([a-z_]+)|\[([0-9]+)\]")
_WORDS = {"`object`": "a table", "`array`": "an array", "`str`": "a string", "`int`": "a whole number"}


def _explain(complaint: str, into: type[Any]) -> tuple[Keys, str]:
    """msgspec's message as the keys that it is about and a sentence."""
    if match := _UNKNOWN.fullmatch(complaint):
        keys = _steps(match[2])
        accepted = ", ".join(sorted(field.encode_name for field in _fields(into, keys)))
        return (*keys, match[1]), f"no such key; accepted are {accepted}"
    match = _INVALID.fullmatch(complaint)
    message = match[1] if match else complaint
    for word, meaning in _WORDS.items():
        message = message.replace(word, meaning)
    return _steps(match[2] if match else None), message[:1].lower() + message[1:]


def _steps(path: str | None) -> Keys:
    return tuple(int(place) if place else name for name, place in _STEP.findall(path or ""))


def _fields(into: type[Any], keys: Keys) -> tuple[msgspec.structs.FieldInfo, ...]:
    for key in keys:
        into = next(field.type for field in msgspec.structs.fields(into) if field.encode_name == key)
    return msgspec.structs.fields(into)


def _read_value(kind: type[Any], value: object) -> object:
    """msgspec's hook for the types above; its ValueErrors become ValidationErrors."""
    if value == _WORD and not issubclass(kind, str):
        return kind(UNLIMITED)
    return kind(_READERS[kind](value))


def _size(value: object, minimum: int = 1) -> int:
    if isinstance(value, str):
        return parse_size(value, minimum=minimum)
    if type(value) is int and minimum <= value <= MAX_SIZE:
        return value
    raise ValueError(f'not a size: {value!r}; accepted are {SIZE_FORMS}, or "{_WORD}"')


def _count(value: object, minimum: int = 0) -> int:
    if type(value) is int and minimum <= value < UNLIMITED:
        return value
    raise ValueError(f'not a count: {value!r}; accepted are whole numbers from {minimum}, or "{_WORD}"')


def _cpus(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100_000:
        return float(value)
    raise ValueError(f'not a number of CPUs: {value!r}; accepted are numbers above 0 such as 0.5 or 4, or "{_WORD}"')


def _duration(value: object) -> int:
    if isinstance(value, str) or type(value) is int:
        return parse_duration(str(value))
    raise ValueError(f'not a duration: {value!r}; accepted are {DURATION_FORMS}, or "{_WORD}"')


def _cpu_list(value: object) -> str:
    try:
        cpus = msgspec.convert({"cpuset": value}, Limits).cpuset
    except msgspec.ValidationError:
        cpus = None
    if cpus is None:
        raise ValueError(f'not a list of CPUs: {value!r}; accepted are strings such as "0-3,6"')
    return cpus


def _principal(value: object) -> str:
    if type(value) is int and 0 <= value <= MAX_ID:
        return str(value)
    if isinstance(value, str) and value and (not value.isdecimal() or (value.isascii() and int(value) <= MAX_ID)):
        return value
    raise ValueError(f"neither a name nor a number from 0 to {MAX_ID}: {value!r}")


_READERS: dict[type[Any], Callable[[object], object]] = {
    Size: _size,
    Swap: lambda value: _size(value, 0),
    Count: _count,
    Positive: lambda value: _count(value, 1),
    Cpus: _cpus,
    Duration: _duration,
    CpuList: _cpu_list,
    Principal: _principal,
}
