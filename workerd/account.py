"""Whom a job runs as, where an admin names somebody: looked up once, before the job exists.

The lookups may ask a directory service and so block: call `find` in a thread.
"""

from __future__ import annotations

import grp
import os
import pwd

from msgspec import Struct

from workerd.errors import InvalidParams


class Account(Struct, frozen=True):
    """Ids, and what a login sets in the environment (empty where it has no account)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    env: dict[str, str]


def find(text: str) -> Account:
    """The account that NAME, UID, NAME:GROUP or UID:GROUP means; a uid without an
    account needs a group. Raises InvalidParams."""
    who, colon, group = text.partition(":")
    entry = _entry(who)
    if entry is None and not (who.isdecimal() and colon):
        hint = f"; say which group: {who}:GID" if who.isdecimal() else ""
        raise InvalidParams(f"no such user: {who!r}{hint}", field="user")
    if entry is None:
        return Account(_id(who), _gid(group), (), {})
    gid = _gid(group) if colon else entry.pw_gid
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, gid)))
    env = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell or "/bin/sh"}
    return Account(entry.pw_uid, gid, groups, env)


def _entry(who: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(_id(who)) if who.isdecimal() else pwd.getpwnam(who)
    except (KeyError, ValueError):  # ValueError: NUL, or lone surrogates, in a name
        return None


def _gid(group: str) -> int:
    if group.isdecimal():
        return _id(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise InvalidParams(f"no such group: {group!r}", field="user") from error


def _id(digits: str) -> int:
    """-1 means "leave as it is" to the kernel, so it is nobody's."""
    number = int(digits[:11])
    if number >= 2**32 - 1:
        raise InvalidParams(f"{digits} is no id of a user or group", field="user")
    return number
