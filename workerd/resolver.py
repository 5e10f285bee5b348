"""The name servers of a job on the bridge: its /etc/resolv.conf and /etc/hosts.

The host's servers, as resolv.conf(5) names them. One on the host's loopback (a stub
such as systemd-resolved's 127.0.0.53) is out of a job's reach, so its upstream servers
are taken; IPv6 servers are left out, since jobs have no IPv6.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

HOST_FILE = "/etc/resolv.conf"
UPSTREAM_FILES = ("/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf")
_MAX_SERVERS = 3
"""MAXNS of resolv.conf(5)"""

NO_SERVER = (
    "names cannot be looked up in this job: the machine's resolver listens on its own loopback only; "
    'name servers that jobs can reach in the configuration ([network] dns = ["ADDRESS"])'
)


class Resolver(NamedTuple):
    text: str
    """of resolv.conf"""
    warnings: tuple[str, ...]


def resolver(configured: tuple[str, ...]) -> Resolver:
    """Of these servers, or the host's. Reads files; raises nothing."""
    host = _read(HOST_FILE)
    others = _lines(host, ("search", "domain", "options", "sortlist"))
    servers = list(configured) or _servers(host)
    for path in UPSTREAM_FILES:
        if not servers:
            text = _read(path)
            servers = _servers(text)
            others = others or _lines(text, ("search", "domain", "options"))
    lines = [*(f"nameserver {server}" for server in servers[:_MAX_SERVERS]), *others]
    return Resolver("".join(f"{line}\n" for line in lines), () if servers else (NO_SERVER,))


def hosts(address: str, hostname: str) -> str:
    """hosts(5) with the job itself, and nothing of the machine's."""
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""


def _lines(text: str, words: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if line.split(maxsplit=1)[:1] and line.split(maxsplit=1)[0] in words]


def _servers(text: str) -> list[str]:
    """The reachable ones."""
    found = []
    for line in _lines(text, ("nameserver",)):
        try:
            address = ipaddress.IPv4Address(line.split()[1])
        except (IndexError, ValueError):
            continue
        if not address.is_loopback and not address.is_unspecified:
            found.append(str(address))
    return found
