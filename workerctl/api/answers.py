"""Requests as lines, and lines as answers: the protocol's structs at the client's end."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from workerd import protocol
from workerd.errors import ConnectionFailed
from workerd.protocol import METHODS, Params

_answers = msgspec.json.Decoder(protocol.Response)


def encoded(number: int, method: str, params: Params) -> bytes:
    """The request's line."""
    return protocol.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def decoded(line: bytes) -> protocol.Response:
    """Raises ConnectionFailed."""
    try:
        return _answers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _garbled(error) from error


def result_of(method: str, answer: protocol.Response) -> Any:
    """The struct that METHODS names for the method; raises the error that it is."""
    if answer.error is not UNSET:
        raise protocol.error_from(answer.error)
    if answer.result is UNSET:
        raise ConnectionFailed("workerd's answer has neither a result nor an error")
    try:
        return msgspec.json.decode(answer.result, type=METHODS[method].result)
    except msgspec.DecodeError as error:
        raise _garbled(error) from error


def check_fds(method: str, result: Any, received: list[int]) -> None:
    """Raises ConnectionFailed where not as many came as the result says."""
    if getattr(result, "fds", 0) != len(received):
        raise ConnectionFailed(f"{method} gave {len(received)} descriptors in place of {getattr(result, 'fds', 0)}")


def _garbled(error: Exception) -> ConnectionFailed:
    return ConnectionFailed(f"this is not workerd's answer, or not of this version: {error}")
