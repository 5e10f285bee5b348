"""The pure parts of the network: addresses, name servers, settings, host ports."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from workerd import config, resolver
from workerd.addresspool import AddressPool
from workerd.errors import ConfigError, Exhausted, InvalidParams
from workerd.hostports import HostPorts
from workerd.job import Protocol, Publish
from workerd.netconfig import NetworkSettings, format_ports, may_publish


def pool(network: str = "10.0.0.0/29") -> AddressPool:
    return AddressPool(ipaddress.IPv4Network(network))


class TestAddressPool:
    def test_gives_every_host_but_the_bridges(self) -> None:
        made = pool()
        assert [made.take(str(n)) for n in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
        assert len(made) == made.size == 5

    def test_is_exhausted_when_all_are_taken_and_says_what_to_do(self) -> None:
        made = pool()
        for n in range(5):
            made.take(str(n))
        with pytest.raises(Exhausted, match=r"all 5 addresses of 10\.0\.0\.0/29 are taken: wait"):
            made.take("6")

    def test_reuses_what_was_given_back_last_of_all(self) -> None:
        made = pool()
        first = made.take("a")
        made.give_back(first, "a")
        assert [made.take(str(n)) for n in range(5)] == [f"10.0.0.{n}" for n in (3, 4, 5, 6, 2)]

    def test_giving_back_again_does_not_take_it_from_the_next(self) -> None:
        made = pool()
        for n in range(5):
            made.take(str(n))
        made.give_back("10.0.0.2", "0")
        assert made.take("next") == "10.0.0.2"
        made.give_back("10.0.0.2", "0")
        with pytest.raises(Exhausted):
            made.take("other")

    def test_claimed_addresses_are_not_given(self) -> None:
        made = pool()
        made.claim("10.0.0.2", "old")
        made.claim("192.0.2.1", "of another pool")
        assert made.take("new") == "10.0.0.3"
        made.give_back("10.0.0.2", "old")
        assert [made.take(str(n)) for n in range(4)] == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


class TestResolver:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(resolver, "HOST_FILE", str(tmp_path / "resolv.conf"))
        monkeypatch.setattr(resolver, "UPSTREAM_FILES", (str(tmp_path / "upstream"),))
        return tmp_path

    def test_the_hosts_servers(self, files: Path) -> None:
        (files / "resolv.conf").write_text("# x\nsearch a.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n")
        found = resolver.resolver(())
        assert found.text == "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example\n"
        assert found.warnings == ()

    def test_behind_a_stub_the_upstream_servers(self, files: Path) -> None:
        (files / "resolv.conf").write_text("nameserver 127.0.0.53\noptions edns0\n")
        (files / "upstream").write_text("nameserver 192.0.2.9\nsearch b.example\n")
        assert resolver.resolver(()).text == "nameserver 192.0.2.9\noptions edns0\n"

    def test_without_any_that_can_be_reached_a_warning(self, files: Path) -> None:
        (files / "resolv.conf").write_text("nameserver 127.0.0.1\nnameserver ::1\nnameserver\nnameserver x\n")
        found = resolver.resolver(())
        assert found.text == ""
        assert "[network] dns" in found.warnings[0]

    def test_configured_ones_win(self, files: Path) -> None:
        (files / "resolv.conf").write_text("nameserver 192.0.2.1\n")
        assert resolver.resolver(("192.0.2.7",)).text == "nameserver 192.0.2.7\n"

    def test_no_more_than_a_resolver_takes(self, files: Path) -> None:
        (files / "resolv.conf").write_text("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9)))
        assert len(resolver.resolver(()).text.splitlines()) == 3

    def test_no_file_at_all(self, files: Path) -> None:
        assert resolver.resolver(()).warnings == (resolver.NO_SERVER,)


class TestSettings:
    def read(self, tmp_path: Path, text: str) -> NetworkSettings:
        path = tmp_path / "workerd.toml"
        path.write_text(f"[network]\n{text}\n")
        return config.load(path, required=True).policy.network

    def test_all_keys(self, tmp_path: Path) -> None:
        text = 'bridge="b0"\naddresses="192.168.8.0/24"\nmtu=9000\npublish="80, 8000-8009"\ndns=["192.0.2.1"]'
        found = self.read(tmp_path, text)
        assert found == NetworkSettings("b0", "192.168.8.0/24", 9000, ((80, 80), (8000, 8009)), ("192.0.2.1",))
        assert (found.gateway, found.prefix) == ("192.168.8.1", 24)

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ('bridge = "a name with spaces"', "not an interface's name"),
            ('bridge = "sixteen-letters-"', "not an interface's name"),
            ('bridge = "../x"', "not an interface's name"),
            ('bridge = "wk0123456789"', "not an interface's name"),
            ('addresses = "10.0.0.1/24"', "not an IPv4 network"),
            ('addresses = "fd00::/64"', "not an IPv4 network"),
            ('addresses = "10.0.0.0/30"', "the prefix is to be /8 to /29"),
            ('addresses = "8.8.8.0/24"', "no private network"),
            ('addresses = "127.0.0.0/8"', "no private network"),
            ('addresses = "169.254.0.0/16"', "no private network"),
            ("mtu = 100", "an MTU is 576 to 65535"),
            ('publish = "all"', "not a list of ports"),
            ('publish = "90-80"', "not a list of ports"),
            ('publish = "0-80"', "not a list of ports"),
            ('publish = "1-65536"', "not a list of ports"),
            ('dns = ["127.0.0.53"]', "the job's own loopback"),
            ('dns = ["::1"]', "not an IPv4 address"),
            ('dns = ["example.org"]', "not an IPv4 address"),
            ("mtu = '1500'", "network.mtu"),
            ("adresses = 'x'", "no such key"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path: Path, line: str, complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint) as caught:
            self.read(tmp_path, f"modes = []\n{line}")
        assert caught.value.data["line"] == 3

    def test_ports(self) -> None:
        ports = ((80, 80), (8000, 8009))
        assert [port for port in (79, 80, 81, 7999, 8000, 8009, 8010) if may_publish(port, ports)] == [80, 8000, 8009]
        assert format_ports(ports) == "80, 8000-8009"
        assert format_ports(()) == "none"


class TestHostPorts:
    @pytest.fixture
    def ports(self) -> Iterator[HostPorts]:
        made = HostPorts()
        yield made
        made.close()

    @staticmethod
    def free_port() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

    def test_one_that_a_program_has_is_refused_and_none_of_the_others_is_kept(self, ports: HostPorts) -> None:
        free = self.free_port()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            taken = sock.getsockname()[1]
            with pytest.raises(InvalidParams, match=f"host port {taken}/tcp is in use on this machine"):
                ports.take([Publish(free, 1), Publish(taken, 1)], "job")
        ports.take([Publish(free, 1)], "other")
        assert ports.holder(Publish(free, 1)) == "other"

    def test_held_until_given_back(self, ports: HostPorts) -> None:
        port = Publish(self.free_port(), 1)
        ports.take([port], "job")
        with socket.socket() as sock, pytest.raises(OSError, match="in use"):
            sock.bind(("127.0.0.1", port.host))
        with pytest.raises(InvalidParams, match="is published by a job"):
            ports.take([port], "other")
        ports.give_back("other")
        ports.give_back("job")
        ports.give_back("job")
        ports.take([port], "other")

    def test_tcp_and_udp_are_two(self, ports: HostPorts) -> None:
        number = self.free_port()
        ports.take([Publish(number, 1), Publish(number, 1, Protocol.UDP)], "job")

    def test_after_a_restart_a_port_that_somebody_took_is_still_the_jobs(self, ports: HostPorts) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = Publish(sock.getsockname()[1], 1)
            ports.claim([port], "job")
        assert ports.holder(port) == "job"
        ports.give_back("job")
        assert ports.holder(port) is None
