"""User names. They are looked up here, in the client, and nowhere in the daemon."""

from __future__ import annotations

from functools import cache

from workerctl.wire import far


@cache
def user_name(uid: int) -> str:
    """The account's name, or its number where it has none on the machine that is meant."""
    if (link := far()) is not None:
        return link.user_name(uid)
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
