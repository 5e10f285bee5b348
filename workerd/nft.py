"""Our nftables table: NAT, isolation and published ports. Imported when the first job
asks for a network, since pyroute2 takes 300 ms.

One IPv4 table, named after the bridge; nothing of other tables is touched, and since
an `accept` here is no more than the absence of our objection, a firewall of the
machine's own still decides as well. In nft's own words:

    chain forward {  filter hook forward
        iifname BRIDGE oifname BRIDGE drop           jobs do not reach each other
        oifname BRIDGE ct state established,related accept
        oifname BRIDGE ct status dnat accept         published ports
        oifname BRIDGE drop                          and nothing else reaches a job
        iifname BRIDGE ip saddr != POOL drop
        iifname BRIDGE ip daddr 169.254.0.0/16 drop  a cloud's metadata service
    }
    chain opened {   filter hook forward             see workerd.bridge, Forwarding
        iifname UPLINK oifname != BRIDGE drop        a rule for each uplink
    }
    chain input {    filter hook input
        iifname BRIDGE ct state established,related accept
        iifname BRIDGE meta l4proto icmp accept
        iifname BRIDGE drop                          the host's own services
    }
    chain before {   nat hook prerouting; the same in `local`, nat hook output
        fib daddr type local dnat to meta l4proto . th dport map @ports
    }
    chain after {    nat hook postrouting
        ip saddr POOL oifname != BRIDGE masquerade
        ip saddr 127.0.0.0/8 oifname BRIDGE masquerade
    }
    map ports { type inet_proto . inet_service : ipv4_addr . inet_service }

What must hold: a change is one transaction, made whole or not at all. Everything
blocks; for one thread.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg, nftsocket
from pyroute2.nftables.expressions import genex, masq, verdict
from pyroute2.nftables.main import NFTables

from workerd.job import Protocol, Publish

Expressions = list[Any]
Message = Any
"""pyroute2 has no types"""

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_DROP, _ACCEPT = 0, 1
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
# linux/netfilter/nf_conntrack_common.h
_ESTABLISHED_OR_RELATED = 2 | 4
_STATUS_DNAT = 1 << 5
_CT_STATE, _CT_STATUS = 0, 2
# linux/rtnetlink.h
_RTN_LOCAL = 2
_PORTS = "ports"
_KEY_TYPE = nftsocket.DATA_TYPE_INET_PROTOCOL << 6 | nftsocket.DATA_TYPE_INET_SERVICE
_DATA_TYPE = nftsocket.DATA_TYPE_IPADDR << 6 | nftsocket.DATA_TYPE_INET_SERVICE
_PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}

Forward = tuple[Publish, str]
"""a published port and the address of its job"""


class Table:
    """Owns the netfilter netlink socket."""

    def __init__(self, bridge: str, network: ipaddress.IPv4Network) -> None:
        self._bridge = bridge
        self._network = network
        self._socket = NFTables(nfgen_family=nftsocket.NFPROTO_IPV4)

    def close(self) -> None:
        self._socket.close()

    def build(self, forwards: Iterable[Forward], opened: Iterable[str]) -> None:
        """Replace the table, whatever is there: no packet sees it half made. Raises
        OSError."""
        messages = [self._table("new"), self._table("del"), self._table("new"), self._ports_map()]
        messages += self._filter_chains() + self._nat_chains()
        messages += [self._opened(uplink) for uplink in opened]
        elements = [_element(publish, address) for publish, address in forwards]
        if elements:
            messages.append(self._elements(elements, delete=False))
        self._commit(messages)

    def remove(self) -> None:
        """Can be repeated."""
        self._commit([self._table("new"), self._table("del")])

    def publish(self, forwards: Iterable[Forward]) -> None:
        elements = [_element(publish, address) for publish, address in forwards]
        if elements:
            self._commit([self._elements(elements, delete=False)])

    def unpublish(self, forwards: Iterable[Forward]) -> None:
        """Those that are there."""
        for publish, address in forwards:
            try:
                self._commit([self._elements([_element(publish, address)], delete=True)])
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def open_uplink(self, uplink: str) -> None:
        self._commit([self._opened(uplink)])

    def _commit(self, messages: list[Message]) -> None:
        batch = [_batch_mark(_BATCH_BEGIN), *messages, _batch_mark(_BATCH_END)]
        try:
            self._socket.nlm_request_batch(batch)
        except NetlinkError as error:
            raise OSError(error.code, f"nftables: {error}") from error

    def _table(self, what: str) -> Message:
        kind = nftsocket.NFT_MSG_NEWTABLE if what == "new" else nftsocket.NFT_MSG_DELTABLE
        return _message(nftsocket.nft_table_msg, kind, NFTA_TABLE_NAME=self._bridge)

    def _chain(self, name: str, kind: str, hook: str, priority: int, rules: list[Expressions]) -> list[Message]:
        attributes = [["NFTA_HOOK_HOOKNUM", _HOOKS[hook]], ["NFTA_HOOK_PRIORITY", priority]]
        chain = _message(
            nftsocket.nft_chain_msg,
            nftsocket.NFT_MSG_NEWCHAIN,
            NFTA_CHAIN_TABLE=self._bridge,
            NFTA_CHAIN_NAME=name,
            NFTA_CHAIN_HOOK={"attrs": attributes},
            NFTA_CHAIN_POLICY=_ACCEPT,
            NFTA_CHAIN_TYPE=kind,
        )
        return [chain, *(self._rule(name, rule) for rule in rules)]

    def _rule(self, chain: str, expressions: Expressions) -> Message:
        return _message(
            nftsocket.nft_rule_msg,
            nftsocket.NFT_MSG_NEWRULE,
            NFTA_RULE_TABLE=self._bridge,
            NFTA_RULE_CHAIN=chain,
            NFTA_RULE_EXPRESSIONS=expressions,
        )

    def _filter_chains(self) -> list[Message]:
        from_jobs, to_jobs = _interface("IIF", self._bridge), _interface("OIF", self._bridge)
        answers = _conntrack(_CT_STATE, _ESTABLISHED_OR_RELATED)
        forward = [
            from_jobs + to_jobs + verdict(_DROP),
            to_jobs + answers + verdict(_ACCEPT),
            to_jobs + _conntrack(_CT_STATUS, _STATUS_DNAT) + verdict(_ACCEPT),
            to_jobs + verdict(_DROP),
            from_jobs + _address("source", self._network, equal=False) + verdict(_DROP),
            from_jobs + _address("destination", ipaddress.IPv4Network("169.254.0.0/16")) + verdict(_DROP),
        ]
        icmp = _meta("L4PROTO") + _compare(bytes([socket.IPPROTO_ICMP]))
        received = [
            from_jobs + answers + verdict(_ACCEPT),
            from_jobs + icmp + verdict(_ACCEPT),
            from_jobs + verdict(_DROP),
        ]
        return [
            *self._chain("forward", "filter", "forward", 0, forward),
            *self._chain("opened", "filter", "forward", 0, []),
            *self._chain("input", "filter", "input", 0, received),
        ]

    def _opened(self, uplink: str) -> Message:
        others = _interface("OIF", self._bridge, equal=False)
        return self._rule("opened", _interface("IIF", uplink) + others + verdict(_DROP))

    def _nat_chains(self) -> list[Message]:
        loopback = ipaddress.IPv4Network("127.0.0.0/8")
        leaving = [
            _address("source", self._network) + _interface("OIF", self._bridge, equal=False) + masq(),
            _address("source", loopback) + _interface("OIF", self._bridge) + masq(),
        ]
        return [
            *self._chain("before", "nat", "prerouting", -100, [_to_local() + _dnat_by_map()]),
            *self._chain("local", "nat", "output", -100, [_to_local() + _dnat_by_map()]),
            *self._chain("after", "nat", "postrouting", 100, leaving),
        ]

    def _ports_map(self) -> Message:
        return _message(
            nftsocket.nft_set_msg,
            nftsocket.NFT_MSG_NEWSET,
            NFTA_SET_TABLE=self._bridge,
            NFTA_SET_NAME=_PORTS,
            NFTA_SET_FLAGS={"NFT_SET_MAP"},
            NFTA_SET_KEY_TYPE=_KEY_TYPE,
            NFTA_SET_KEY_LEN=8,
            NFTA_SET_DATA_TYPE=_DATA_TYPE,
            NFTA_SET_DATA_LEN=8,
            NFTA_SET_ID=1,
        )

    def _elements(self, elements: list[Any], *, delete: bool) -> Message:
        return _message(
            nftsocket.nft_set_elem_list_msg,
            nftsocket.NFT_MSG_DELSETELEM if delete else nftsocket.NFT_MSG_NEWSETELEM,
            NFTA_SET_ELEM_LIST_TABLE=self._bridge,
            NFTA_SET_ELEM_LIST_SET=_PORTS,
            NFTA_SET_ELEM_LIST_ELEMENTS=elements,
        )


def _message(kind: type[Any], number: int, **attributes: Any) -> Message:
    message = kind()
    message["attrs"] = list(attributes.items())
    message["nfgen_family"] = nftsocket.NFPROTO_IPV4
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
    return message


def _batch_mark(kind: int) -> Message:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    return message


def _data(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _compare(value: bytes, *, equal: bool = True) -> Expressions:
    return [genex("cmp", {"sreg": 1, "op": 0 if equal else 1, "data": _data(value)})]


def _masked(mask: bytes) -> Expressions:
    fields = {"sreg": 1, "dreg": 1, "len": len(mask), "mask": _data(mask), "xor": _data(bytes(len(mask)))}
    return [genex("bitwise", fields)]


def _meta(key: str, register: int = 1) -> Expressions:
    return [genex("meta", {"key": int(nftsocket.Meta[f"NFT_META_{key}"]), "dreg": register})]


def _interface(which: str, name: str, *, equal: bool = True) -> Expressions:
    """`which`: IIF or OIF."""
    return _meta(f"{which}NAME") + _compare(name.encode().ljust(16, b"\0"), equal=equal)


def _address(which: str, network: ipaddress.IPv4Network, *, equal: bool = True) -> Expressions:
    """In the IPv4 header, at offset 12 or 16."""
    offset = 12 if which == "source" else 16
    load = genex("payload", {"dreg": 1, "base": 1, "offset": offset, "len": 4})
    return [load, *_masked(network.netmask.packed), *_compare(network.network_address.packed, equal=equal)]


def _conntrack(key: int, bits: int) -> Expressions:
    """Any of the bits is set; the kernel has them in its own byte order."""
    load = genex("ct", {"dreg": 1, "key": key})
    return [load, *_masked(struct.pack("=I", bits)), *_compare(bytes(4), equal=False)]


def _to_local() -> Expressions:
    """fib daddr type local. NFT_FIB_RESULT_ADDRTYPE is 3 and no flag, as pyroute2 has
    it: these two of its names make a 3. NFTA_FIB_F_DADDR is 2."""
    fields = {"dreg": 1, "result": {"NFT_FIB_RESULT_UNSPEC", "NFT_FIB_RESULT_OIF"}, "flags": 2}
    return [genex("fib", fields), *_compare(struct.pack("=I", _RTN_LOCAL))]


def _dnat_by_map() -> Expressions:
    """The key in registers 8 and 9 (which are 1), and there the answer as well."""
    port = genex("payload", {"dreg": 9, "base": 2, "offset": 2, "len": 2})
    lookup = genex("lookup", {"set": _PORTS, "sreg": 1, "dreg": 1})
    fields = {"type": 1, "family": nftsocket.NFPROTO_IPV4, "reg_addr_min": 8, "reg_proto_min": 9}
    return [*_meta("L4PROTO", 8), port, lookup, genex("nat", fields)]


def _element(publish: Publish, address: str) -> Any:
    key = struct.pack("!B3xH2x", _PROTOCOLS[publish.protocol], publish.host)
    data = ipaddress.IPv4Address(address).packed + struct.pack("!H2x", publish.job)
    return {"attrs": [("NFTA_SET_ELEM_KEY", _data(key)), ("NFTA_SET_ELEM_DATA", _data(data))]}
