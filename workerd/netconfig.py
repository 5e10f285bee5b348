"""[network] of the configuration: the bridge, its addresses, and who may publish ports.

    [network]
    modes = ["none", "bridge"]       # for those who are not admins; "host" is for admins only
    bridge = "worker0"               # the interface that jobs with a network hang on
    addresses = "10.231.0.0/20"      # the bridge has the first, each job one of the rest
    mtu = 1500
    publish = "1024-65535"           # host ports that those who are not admins may publish;
                                     # "none" for nobody
    dns = ["192.0.2.53"]             # servers for jobs; empty: the host's own

`modes` is the policy's; the rest is here.
"""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from workerd.configfile import Document
from workerd.errors import ConfigError

Ports = tuple[tuple[int, int], ...]
"""ranges, ends included"""

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_LEAST_BITS, _MOST_BITS = 8, 29
MIN_MTU, MAX_MTU = 576, 65_535


class NetworkSettings(Struct, frozen=True):
    bridge: str = "worker0"
    addresses: str = "10.231.0.0/20"
    """an IPv4 network"""
    mtu: int = 1500
    publish: Ports = ((1024, 65_535),)
    """host ports for those who are not admins"""
    dns: tuple[str, ...] = ()
    """IPv4 addresses; empty: what the host's resolver uses"""

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.addresses)

    @property
    def gateway(self) -> str:
        """The bridge's own address: the first of the network."""
        return str(self.network.network_address + 1)

    @property
    def prefix(self) -> int:
        return self.network.prefixlen


class NetworkSection(Struct, frozen=True, forbid_unknown_fields=True):
    """The table as it is written; None is "not said"."""

    modes: tuple[str, ...] | None = None
    bridge: str | None = None
    addresses: str | None = None
    mtu: int | None = None
    publish: str | None = None
    dns: tuple[str, ...] | None = None


def settings(document: Document, section: NetworkSection) -> NetworkSettings:
    """Raises ConfigError at the line of what is wrong."""
    default = NetworkSettings()
    return NetworkSettings(
        bridge=default.bridge if section.bridge is None else _bridge(document, section.bridge),
        addresses=default.addresses if section.addresses is None else _addresses(document, section.addresses),
        mtu=default.mtu if section.mtu is None else _mtu(document, section.mtu),
        publish=default.publish if section.publish is None else _ports(document, section.publish),
        dns=tuple(_server(document, place, text) for place, text in enumerate(section.dns or ())),
    )


def may_publish(port: int, ports: Ports) -> bool:
    return any(low <= port <= high for low, high in ports)


def format_ports(ports: Ports) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ports) or "none"


def _error(document: Document, key: str, message: str) -> ConfigError:
    return document.error(("network", key), message)


def _bridge(document: Document, name: str) -> str:
    # Names of jobs' links begin so (workerd.bridge).
    if not _INTERFACE.fullmatch(name) or re.fullmatch(r"wk[0-9a-z]{10}", name):
        message = f"not an interface's name: {name!r}; up to 15 letters, digits, dots, dashes and underscores"
        raise _error(document, "bridge", message)
    return name


def _addresses(document: Document, text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        message = f"not an IPv4 network: {text!r} ({error}); accepted are ones such as 10.231.0.0/20"
        raise _error(document, "addresses", message) from error
    if not _LEAST_BITS <= network.prefixlen <= _MOST_BITS:
        raise _error(document, "addresses", f"{text}: the prefix is to be /{_LEAST_BITS} to /{_MOST_BITS}")
    if network.is_loopback or network.is_multicast or network.is_link_local or not network.is_private:
        raise _error(document, "addresses", f"{text} is no private network; take one of 10/8, 172.16/12 or 192.168/16")
    return str(network)


def _mtu(document: Document, mtu: int) -> int:
    if not MIN_MTU <= mtu <= MAX_MTU:
        raise _error(document, "mtu", f"{mtu}: an MTU is {MIN_MTU} to {MAX_MTU}")
    return mtu


def _ports(document: Document, text: str) -> Ports:
    if text == "none":
        return ()
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= 65_535:
            forms = '"1024-65535", "8080, 9000-9099" or "none"'
            raise _error(document, "publish", f"not a list of ports: {text!r}; accepted are ones such as {forms}")
        ranges.append((low, high))
    return tuple(ranges)


def _server(document: Document, place: int, text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        message = f"not an IPv4 address: {text!r} (jobs have no IPv6)"
        raise document.error(("network", "dns", place), message) from error
    if address.is_loopback or address.is_unspecified:
        message = f"{text} is the job's own loopback, not the host's: name a server that jobs can reach"
        raise document.error(("network", "dns", place), message)
    return str(address)
