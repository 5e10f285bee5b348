"""The bridge that jobs with a network hang on, and each job's veth. Imported when the
first job asks for a network, since pyroute2 takes 300 ms.

    BRIDGE         first address of the pool; IPv4 alone
      wk<job id>   the host's end of a job's veth, an isolated port (bridge(8)): what comes
                   from it goes to the bridge and never to another job, whatever it is
        eth0       the job's end, in its network namespace

A job's address is in the last four bytes of its veth's hardware address too, for whoever
looks at them from the machine (`ip link`).

The synchronous IPRoute, for a thread of its own: the kernel carries a request out
within sendmsg(2), under a lock that the whole machine shares, so that pyroute2's
asyncio API blocks the loop as long (16 to 32 ms to delete a link).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from workerd.errors import ConfigError
from workerd.netconfig import NetworkSettings

JOB_INTERFACE = "eth0"
_LINK = re.compile(r"wk([0-9a-z]{10})")
_HOST_END, _JOB_END, _OF_BRIDGE = 0x06, 0x02, 0x0A
"""locally administered, unicast (IEEE 802)"""


class JobLink(NamedTuple):
    job_id: str
    address: str


class Bridge:
    """Owns the rtnetlink socket. Every method raises OSError where the kernel refuses."""

    def __init__(self, settings: NetworkSettings) -> None:
        self.settings = settings
        self._ip = IPRoute()
        self._index = 0

    def close(self) -> None:
        self._ip.close()

    def find(self) -> bool:
        """Whether an interface of the bridge's name is there."""
        with _told("the bridge"):
            found = self._ip.link_lookup(ifname=self.settings.bridge)
        self._index = found[0] if found else 0
        return bool(found)

    def make(self) -> None:
        """Raises ConfigError where the addresses are in use otherwise."""
        settings = self.settings
        self._check_free()
        with _told(f"bridge {settings.bridge}"):
            hardware = _hardware(_OF_BRIDGE, settings.gateway)
            self._ip.link("add", ifname=settings.bridge, kind="bridge", address=hardware)
            self.find()
            # Before it is up: it must never have an IPv6 address that jobs could reach.
            with contextlib.suppress(FileNotFoundError):
                write_setting(f"ipv6/conf/{settings.bridge}/disable_ipv6", "1")
            # So that 127.0.0.1:PORT of the host can lead to a job; the input chain refuses
            # whatever comes from a job to the host's loopback, or to the host at all.
            write_setting(f"ipv4/conf/{settings.bridge}/route_localnet", "1")
            write_setting(f"ipv4/conf/{settings.bridge}/forwarding", "1")
            self._ip.addr("add", index=self._index, address=settings.gateway, prefixlen=settings.prefix)
            self._ip.link("set", index=self._index, mtu=settings.mtu, state="up")

    def remove(self) -> None:
        """With all its jobs' links; can be repeated."""
        if not self.find():
            return
        for link in self.links():
            self.disconnect(link.job_id)
        with _told(f"bridge {self.settings.bridge}"), _gone_is_fine():
            self._ip.link("del", index=self._index)

    def connect(self, job_id: str, pid: int, address: str) -> None:
        """A veth between the bridge and the network namespace of this process, an
        unreaped child of ours."""
        name, mtu = f"wk{job_id}", self.settings.mtu
        peer = {
            "ifname": JOB_INTERFACE,
            "net_ns_pid": pid,
            "address": _hardware(_JOB_END, address),
            "mtu": mtu,
        }
        with _told(f"link {name}"):
            self._ip.link(
                "add",
                ifname=name,
                kind="veth",
                address=_hardware(_HOST_END, address),
                mtu=mtu,
                master=self._index,
                peer=peer,
            )
            index = self._ip.link_lookup(ifname=name)[0]
            self._ip.brport("set", index=index, isolated=1)
            self._ip.link("set", index=index, state="up")

    def disconnect(self, job_id: str) -> None:
        """Nothing where the kernel has removed it with the job's namespace."""
        with _told(f"link wk{job_id}"), _gone_is_fine():
            if found := self._ip.link_lookup(ifname=f"wk{job_id}"):
                self._ip.link("del", index=found[0])

    def links(self) -> list[JobLink]:
        """Of all jobs on the bridge."""
        found = []
        with _told("links"):
            for link in self._ip.get_links():
                match = _LINK.fullmatch(link.get_attr("IFLA_IFNAME") or "")
                if match and self._index and link.get_attr("IFLA_MASTER") == self._index:
                    found.append(JobLink(match[1], _address_in(link.get_attr("IFLA_ADDRESS"))))
        return found

    def uplinks(self) -> list[str]:
        """The interfaces that default routes lead through."""
        found: dict[str, None] = {}
        with _told("routes"):
            for route in self._ip.get_default_routes(family=2):
                for index in _interfaces(route):
                    for link in self._ip.get_links(index):
                        found[str(link.get_attr("IFLA_IFNAME"))] = None
        return list(found)

    def _check_free(self) -> None:
        network = self.settings.network
        with _told("routes"):
            routes = [route for route in self._ip.get_routes(family=2) if route["dst_len"]]
        for route in routes:
            if route.get_attr("RTA_TABLE") == 255:  # RT_TABLE_LOCAL: the addresses themselves
                continue
            there = ipaddress.IPv4Network((str(route.get_attr("RTA_DST")), route["dst_len"]), strict=False)
            if there.overlaps(network):
                raise ConfigError(
                    f"[network] addresses {network} overlap with this machine's route to {there}: "
                    "choose others in the configuration",
                    line=0,
                )


class Forwarding:
    """IPv4 forwarding, per interface (kernel, Documentation/networking/ip-sysctl.rst):
    the bridge's is switched on with the bridge, an uplink's here, for the answers.

    What an uplink was opened for is the bridge alone: a rule (chain `opened` of
    workerd.nft) drops whatever else would now be forwarded from it. Where the machine
    forwards anyway (net.ipv4.ip_forward), nothing is changed and nothing dropped.
    """

    @staticmethod
    def closed(uplinks: list[str]) -> list[str]:
        """Those through which nothing is forwarded yet."""
        if read_setting("ipv4/ip_forward") == "1":
            return []
        return [uplink for uplink in uplinks if read_setting(f"ipv4/conf/{uplink}/forwarding") == "0"]

    @staticmethod
    def switch(uplink: str, *, on: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            write_setting(f"ipv4/conf/{uplink}/forwarding", "1" if on else "0")

    @staticmethod
    def everywhere() -> bool:
        return read_setting("ipv4/ip_forward") == "1"


def read_setting(name: str) -> str:
    """Of this thread's network namespace; empty where it is gone."""
    try:
        with open(f"/proc/sys/net/{name}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def write_setting(name: str, value: str) -> None:
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)


def _interfaces(route: Any) -> list[int]:
    index = route.get_attr("RTA_OIF")
    hops = route.get_attr("RTA_MULTIPATH") or ()
    return [index] if index is not None else [hop["oif"] for hop in hops]


def _hardware(kind: int, address: str) -> str:
    numbers = [kind, 0x57, *ipaddress.IPv4Address(address).packed]
    return ":".join(f"{number:02x}" for number in numbers)


def _address_in(hardware: str) -> str:
    return str(ipaddress.IPv4Address(bytes(int(part, 16) for part in hardware.split(":")[2:])))


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """pyroute2's errors as the OSErrors they are."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code), what) from error


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENODEV, errno.ENOENT):
            raise
