"""JSON through the C half of the json module alone.

Its Python half imports re, which imports enum and functools: 7 ms, when all of
Python starts in 10. The C half is what it calls in the end, on every CPython since
3.4; where it is not there, the json module itself is used. A test holds the two
equal.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any


def loads(line: bytes) -> Any:
    """Raises ValueError for what is no JSON, or not UTF-8."""
    text = line.decode().strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON value") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(text):
        raise ValueError(f"more after the JSON value, from character {end} on")
    return value


def dumps(value: object) -> bytes:
    """On one line, without spaces. Raises UnicodeEncodeError where text was no UTF-8,
    TypeError for what JSON does not have."""
    return "".join(_encode(value, 0)).encode()


def _refuse(value: object) -> str:
    raise TypeError(f"no JSON for {type(value).__name__}")


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


try:
    from _json import encode_basestring, make_encoder, make_scanner

    class _Settings:
        """What the scanner takes its settings from: json.JSONDecoder's attributes."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        array_hook = None
        parse_float = float
        parse_int = int
        parse_constant = staticmethod(_constant)

    _scan = make_scanner(_Settings())  # type: ignore[arg-type]
    _encode = make_encoder({}, _refuse, encode_basestring, None, ":", ",", False, False, False)
except (ImportError, TypeError, AttributeError):
    import json

    _scan = json.JSONDecoder(parse_constant=_constant).scan_once  # type: ignore[attr-defined]
    _encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).iterencode  # type: ignore[assignment]
