"""User names. They are looked up here, in the client, and nowhere in the daemon."""

from __future__ import annotations

import pwd
from functools import cache


@cache
def user_name(uid: int) -> str:
    """The account's name, or its number where it has none on this machine."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
