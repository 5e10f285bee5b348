"""--net: jobs on the bridge, their isolation, published ports; and nothing left of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.host.daemon import ENV, Daemon, as_user, running, until
from tests.host.netns import HOST, OUTSIDE, NetDaemon, World, net_daemon
from workerctl import Client
from workerd import protocol
from workerd.errors import ConfigError, Exhausted, InvalidParams, NotPermitted, WorkerError
from workerd.job import Job, JobSpec, Net, Protocol, Publish, Reason, State

BRIDGE = Net.BRIDGE
NOBODY = 65534
SMALL_POOL = '[network]\naddresses = "10.231.0.0/29"\n'

ECHO = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[3:] == ["udp"] else socket.SOCK_STREAM
sock = socket.socket(socket.AF_INET, kind)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((sys.argv[1], int(sys.argv[2])))
if kind == socket.SOCK_STREAM: sock.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_DGRAM:
        data, peer = sock.recvfrom(100)
        sock.sendto(f"{data.decode()} from {peer[0]}".encode(), peer)
    else:
        connection, peer = sock.accept()
        connection.sendall(f"hello {peer[0]} i am {socket.gethostname()}".encode())
        connection.close()
"""
CONNECT = """
import socket, sys
try:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
    print(sock.recv(100).decode())
except OSError as error:
    print("no:", type(error).__name__, error)
"""
ASK_UDP = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
try:
    sock.sendto(b"hi", (sys.argv[1], int(sys.argv[2])))
    print(sock.recv(100).decode())
except OSError as error:
    print("no:", type(error).__name__, error)
"""
SLOW_LEASE = """
import asyncio
from workerd.network import Network
lease = Network.lease
async def slowly(*asked):
    await asyncio.sleep(1)
    return await lease(*asked)
Network.lease = slowly
"""
PYTHON = "/usr/bin/python3"
ANY = "0.0.0.0"  # noqa: S104 - all addresses of a namespace of the test's own


@pytest.fixture(scope="module")
def net() -> Iterator[NetDaemon]:
    with net_daemon() as daemon:
        yield daemon


@contextlib.contextmanager
def serving(daemon: Daemon, port: int = 80, *publish: Publish, protocol: str = "tcp", **spec: Any) -> Iterator[Job]:
    """A job that serves on all its addresses."""
    words = (PYTHON, "-c", ECHO, ANY, str(port), protocol)
    job_id = daemon.run(*words, net=BRIDGE, publish=publish, **spec)
    try:
        deadline = time.monotonic() + 30
        while b"ready" not in daemon.output(job_id):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield status(daemon, job_id)
    finally:
        end(daemon, job_id)


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        found: Job = client.call("job.status", protocol.JobParams(id=job_id))
    return found


def end(daemon: Daemon, job_id: str) -> None:
    with daemon.client() as client:
        client.call("job.stop", protocol.StopParams(id=job_id, grace=0))


def inside(daemon: Daemon, script: str, *arguments: object, net: Net = BRIDGE) -> str:
    """What a script prints in a job."""
    job = daemon.wait(daemon.run(PYTHON, "-c", script, *map(str, arguments), net=net))
    return daemon.output(job.id).decode().strip()


class TestBridge:
    def test_has_an_address_of_the_pool_and_a_default_route(self, net: NetDaemon) -> None:
        job, text = net.shell("ip -4 -o address show eth0; ip route; ls /sys/class/net", net=BRIDGE)
        assert job.address is not None and job.address.startswith("10.231.0.")
        assert f"inet {job.address}/20" in text
        assert "default via 10.231.0.1 dev eth0" in text
        assert text.split()[-2:] == ["eth0", "lo"]

    def test_reaches_the_outside_as_the_host(self, net: NetDaemon) -> None:
        with net.world.outside.server(ECHO, OUTSIDE, 8000):
            assert inside(net, CONNECT, OUTSIDE, 8000).startswith(f"hello {HOST}")

    def test_mtu_is_the_configured_one(self) -> None:
        with net_daemon('[network]\nmtu = 1380\nbridge = "wide"\naddresses = "10.77.0.0/24"') as daemon:
            job, text = daemon.shell("cat /sys/class/net/eth0/mtu; ip route", net=BRIDGE)
            assert text.split()[0] == "1380"
            assert job.address == "10.77.0.2"
            assert "via 10.77.0.1" in text
            daemon.world.wait_links(["wide"])

    def test_hosts_has_the_job_and_nothing_of_the_machine(self, net: NetDaemon) -> None:
        job, text = net.shell("cat /etc/hosts", net=BRIDGE, hostname="alpha")
        assert f"{job.address}\talpha\n" in text
        assert {line.split()[0] for line in text.splitlines()} == {"127.0.0.1", "::1", job.address}

    def test_resolv_conf_has_servers_that_jobs_can_reach(self) -> None:
        with net_daemon('[network]\ndns = ["192.0.2.53", "192.0.2.54"]') as daemon:
            job, text = daemon.shell("grep nameserver /etc/resolv.conf; echo x >> /etc/resolv.conf", net=BRIDGE)
            assert text.splitlines()[:2] == ["nameserver 192.0.2.53", "nameserver 192.0.2.54"]
            assert "Read-only" in text
            assert job.warnings == ()

    def test_as_an_ordinary_user(self, net: NetDaemon) -> None:
        def run() -> Job:
            with Client(str(net.socket)) as client:
                spec = JobSpec(argv=("ip", "link", "set", "eth0", "down"), net=BRIDGE)
                started = client.call("job.run", protocol.RunParams(spec=spec, env=ENV))
                ended: Job = client.call("job.wait", protocol.WaitParams(ids=(started.id,))).finished[0]
            return ended

        assert as_user(NOBODY, run).exit_code == 2  # not permitted

    def test_a_stop_while_it_is_given_its_network_is_told(self) -> None:
        with net_daemon(prelude=SLOW_LEASE) as daemon, ThreadPoolExecutor() as pool, daemon.client() as client:
            script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
            asked = pool.submit(daemon.run, "sh", "-c", script, net=Net.BRIDGE, name="slow", grace=60_000_000)
            until(lambda: any(daemon.runtime.glob("jobs/*")))
            job = client.stop("slow")
            assert (job.reason, job.signal) in ((Reason.STOPPED, signal.SIGTERM), (Reason.STOPPED, None))
            with contextlib.suppress(WorkerError):
                asked.result(60)


class TestIsolation:
    def test_two_servers_on_one_port_do_not_meet(self, net: NetDaemon) -> None:
        with serving(net, hostname="one") as one, serving(net, hostname="two") as two:
            assert one.address != two.address
            assert net.world.host.python(CONNECT, one.address, 80).endswith("i am one")
            assert net.world.host.python(CONNECT, two.address, 80).endswith("i am two")

    def test_jobs_do_not_reach_each_other(self, net: NetDaemon) -> None:
        with serving(net, 80, Publish(8085, 80)) as other:
            assert inside(net, CONNECT, other.address, 80).startswith("no:")
            assert inside(net, CONNECT, HOST, 8085).startswith("no:")
            assert inside(net, CONNECT, "10.231.0.1", 8085).startswith("no:")

    def test_nor_by_what_the_link_layer_carries(self, net: NetDaemon) -> None:
        """IPv6's neighbours need no router, so no rule of the host's sees them."""
        listen = """
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::", 9000))
sock.settimeout(6)
print("ready", flush=True)
try: print("heard", sock.recv(100).decode(), flush=True)
except OSError: print("silence", flush=True)
"""
        shout = """
import socket, time
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
index = socket.if_nametoindex("eth0")
for _ in range(20):
    try: sock.sendto(b"psst", ("ff02::1", 9000, 0, index))
    except OSError: pass
    time.sleep(0.15)
print("done")
"""
        job_id = net.run(PYTHON, "-c", listen, net=BRIDGE)
        while b"ready" not in net.output(job_id):
            time.sleep(0.02)
        assert inside(net, shout) == "done"
        net.wait(job_id)
        assert net.output(job_id).split() == [b"ready", b"silence"]

    @pytest.mark.parametrize("address", [HOST, "10.231.0.1", "127.0.0.1"])
    def test_services_of_the_host_are_out_of_reach(self, net: NetDaemon, address: str) -> None:
        with net.world.host.server(ECHO, ANY, 7000):
            assert net.world.host.python(CONNECT, HOST, 7000).startswith("hello")
            assert inside(net, CONNECT, address, 7000).startswith("no:")

    def test_the_outside_reaches_no_job_by_its_address(self, net: NetDaemon) -> None:
        net.world.outside.run("ip", "route", "replace", "10.231.0.0/20", "via", HOST)
        with serving(net) as job:
            assert net.world.outside.python(CONNECT, job.address, 80).startswith("no:")

    def test_a_clouds_metadata_service_is_out_of_reach(self, net: NetDaemon) -> None:
        net.world.outside.run("ip", "address", "replace", "169.254.169.254/32", "dev", "lo")
        net.world.host.run("ip", "route", "replace", "169.254.169.254/32", "via", OUTSIDE)
        with net.world.outside.server(ECHO, "169.254.169.254", 80):
            assert net.world.host.python(CONNECT, "169.254.169.254", 80).startswith("hello")
            assert inside(net, CONNECT, "169.254.169.254", 80).startswith("no:")

    def test_a_job_on_none_reaches_nothing(self, net: NetDaemon) -> None:
        script = """
import socket, sys
print(socket.if_nameindex())
for address in sys.argv[1:]:
    try: socket.create_connection((address, 7000), 2)
    except OSError as error: print(error.strerror)
try: socket.socket(socket.AF_UNIX).connect("\\0worker-test-abstract")
except OSError as error: print(error.strerror)
"""
        abstract = """
import socket, time
sock = socket.socket(socket.AF_UNIX); sock.bind("\\0worker-test-abstract"); sock.listen()
print("ready", flush=True); time.sleep(60)
"""
        with net.world.host.server(ECHO, ANY, 7000), net.world.host.server(abstract):
            lines = inside(net, script, HOST, OUTSIDE, "127.0.0.1", net=Net.NONE).splitlines()
        unreachable = "Network is unreachable"
        assert lines == ["[(1, 'lo')]", unreachable, unreachable, "Connection refused", "Connection refused"]

    def test_a_job_on_the_bridge_reaches_no_abstract_socket_of_the_host(self, net: NetDaemon) -> None:
        abstract = """
import socket, time
sock = socket.socket(socket.AF_UNIX); sock.bind("\\0worker-test-abstract"); sock.listen()
print("ready", flush=True); time.sleep(60)
"""
        script = 'import socket; socket.socket(socket.AF_UNIX).connect("\\0worker-test-abstract")'
        with net.world.host.server(abstract):
            assert "ConnectionRefusedError" in inside(net, script)

    def test_forwarding_is_opened_for_the_uplink_and_for_the_bridge_alone(self) -> None:
        with net_daemon() as daemon:
            world = daemon.world
            peer = ["peer", "name", "side1"]
            world.host.run("ip", "link", "add", "side0", "type", "veth", *peer)
            daemon.shell("true", net=BRIDGE)
            setting = "cat /proc/sys/net/ipv4/conf/{}/forwarding"
            shown = {name: world.host.run("sh", "-c", setting.format(name)).strip() for name in ("up0", "side0", "all")}
            assert shown == {"up0": "1", "side0": "0", "all": "0"}
            assert 'iifname "up0" oifname != "worker0" drop' in rules(daemon)
            daemon.stop()
            assert world.host.run("sh", "-c", setting.format("up0")).strip() == "0"


def rules(daemon: NetDaemon) -> str:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed: the rules cannot be shown")
    return daemon.world.host.run("nft", "list", "ruleset")


class TestPublish:
    def test_tcp_from_everywhere(self, net: NetDaemon) -> None:
        with serving(net, 80, Publish(8080, 80)):
            assert net.world.outside.python(CONNECT, HOST, 8080).startswith(f"hello {OUTSIDE}")
            assert net.world.host.python(CONNECT, HOST, 8080).startswith("hello")
            assert net.world.host.python(CONNECT, "127.0.0.1", 8080).startswith("hello")
        net.world.wait_links(["worker0"])
        for namespace, address in ((net.world.outside, HOST), (net.world.host, "127.0.0.1")):
            assert namespace.python(CONNECT, address, 8080).startswith("no: ConnectionRefused")

    def test_udp(self, net: NetDaemon) -> None:
        with serving(net, 5353, Publish(5300, 5353, Protocol.UDP), protocol="udp"):
            assert net.world.outside.python(ASK_UDP, HOST, 5300) == f"hi from {OUTSIDE}"
            assert net.world.host.python(ASK_UDP, "127.0.0.1", 5300).startswith("hi from")
            assert net.world.host.python(CONNECT, HOST, 5300).startswith("no:")

    def test_connections_of_the_host_to_elsewhere_are_left_alone(self, net: NetDaemon) -> None:
        with serving(net, 80, Publish(8000, 80)), net.world.outside.server(ECHO, OUTSIDE, 8000):
            assert net.world.host.python(CONNECT, OUTSIDE, 8000).startswith(f"hello {HOST}")

    def test_a_port_in_use_on_the_machine_is_refused(self, net: NetDaemon) -> None:
        with (
            net.world.host.server(ECHO, "127.0.0.1", 8181),
            pytest.raises(InvalidParams, match="host port 8181/tcp is in use on this machine"),
        ):
            net.run("true", net=BRIDGE, publish=(Publish(8181, 80),))

    def test_a_port_of_another_job_is_refused_and_stays_its(self, net: NetDaemon) -> None:
        with serving(net, 80, Publish(8080, 80), Publish(8082, 80), hostname="first"):
            with pytest.raises(InvalidParams, match="host port 8080/tcp is published by a job"):
                net.run("true", net=BRIDGE, publish=(Publish(8081, 80), Publish(8080, 80)))
            assert net.world.outside.python(CONNECT, HOST, 8080).endswith("first")
            assert net.run("true", net=BRIDGE, publish=(Publish(8081, 80),))

    def test_a_published_port_cannot_be_taken_by_a_program_of_the_host(self, net: NetDaemon) -> None:
        take = "import socket; socket.socket().bind(('127.0.0.1', 8080)); print('taken')"
        with serving(net, 80, Publish(8080, 80)):
            assert "Address already in use" in net.world.host.python(take)
        net.world.wait_links(["worker0"])
        assert net.world.host.python(take) == "taken"

    def test_needs_the_bridge(self, net: NetDaemon) -> None:
        with pytest.raises(InvalidParams, match="--net bridge"):
            net.run("true", publish=(Publish(8080, 80),))

    def test_low_ports_are_for_admins(self, net: NetDaemon) -> None:
        with serving(net, 80, Publish(80, 80)):
            assert net.world.outside.python(CONNECT, HOST, 80).startswith("hello")
        with pytest.raises(NotPermitted, match="host port 80 is not yours to publish; allowed: 1024-65535"):
            as_user(NOBODY, publish_as_user, str(net.socket), 80)
        assert as_user(NOBODY, publish_as_user, str(net.socket), 1024)


def publish_as_user(path: str, port: int) -> str:
    with Client(path) as client:
        spec = JobSpec(argv=("/bin/true",), net=BRIDGE, publish=(Publish(port, 80),))
        return str(client.call("job.run", protocol.RunParams(spec=spec)).id)


class TestPool:
    def test_used_up_is_a_clear_error_and_an_end_frees_an_address(self) -> None:
        with net_daemon(SMALL_POOL) as daemon:
            jobs = [daemon.run("sleep", "1000", net=BRIDGE) for _ in range(5)]
            with pytest.raises(Exhausted, match=r"all 5 addresses of 10\.231\.0\.0/29 are taken"):
                daemon.run("true", net=BRIDGE)
            assert daemon.shell("true")[0].exit_code == 0
            end(daemon, jobs[2])
            daemon.world.wait_links(["worker0", *(f"wk{job}" for job in jobs if job != jobs[2])])
            assert daemon.shell("true", net=BRIDGE)[0].address == "10.231.0.4"

    def test_a_start_that_fails_costs_no_address(self) -> None:
        with net_daemon(SMALL_POOL) as daemon:
            for _ in range(12):
                with pytest.raises(WorkerError, match="command not found"):
                    daemon.run("no-such-command", net=BRIDGE)
            daemon.world.wait_links(["worker0"])

    def test_addresses_in_use_otherwise_are_refused(self) -> None:
        with net_daemon('[network]\naddresses = "10.9.0.0/16"') as daemon:
            daemon.world.host.run("ip", "route", "add", "10.9.4.0/24", "dev", "up0")
            with pytest.raises(ConfigError, match=r"overlap with this machine's route to 10\.9\.4\.0/24"):
                daemon.run("true", net=BRIDGE)
            daemon.world.host.run("ip", "route", "del", "10.9.4.0/24")
            assert daemon.shell("true", net=BRIDGE)[0].exit_code == 0

    def test_an_interface_of_the_bridges_name_that_is_not_ours_is_left_alone(self) -> None:
        with net_daemon() as daemon:
            daemon.world.host.run("ip", "link", "add", "worker0", "type", "bridge")
            with pytest.raises(ConfigError, match="there is an interface worker0 already"):
                daemon.run("true", net=BRIDGE)
            daemon.stop()
            assert daemon.world.links() == ["worker0"]


class TestRestart:
    def test_a_live_job_keeps_its_network_through_a_sigkill(self) -> None:
        with net_daemon() as daemon, serving(daemon, 80, Publish(8080, 80)) as job:
            world = daemon.world
            daemon.kill()
            assert world.outside.python(CONNECT, HOST, 8080).startswith("hello")
            daemon.start()
            assert world.outside.python(CONNECT, HOST, 8080).startswith("hello")
            assert status(daemon, job.id).address == job.address
            other = daemon.shell("true", net=BRIDGE)[0]
            assert other.address != job.address
            with pytest.raises(InvalidParams, match="8080/tcp is published by a job"):
                daemon.run("true", net=BRIDGE, publish=(Publish(8080, 1),))

    def test_what_ended_meanwhile_leaves_nothing(self) -> None:
        with net_daemon() as daemon, serving(daemon, 80, Publish(8081, 80)):
            job_id = daemon.run(PYTHON, "-c", ECHO, ANY, "80", net=BRIDGE, publish=(Publish(8080, 80),))
            pid = status(daemon, job_id).pid
            daemon.kill()
            os.kill(pid or 0, 9)
            daemon.start()
            left = [f"wk{job.id}" for job in live(daemon)]
            assert len(left) == 1
            daemon.world.wait_links(["worker0", *left])
            assert daemon.world.outside.python(CONNECT, HOST, 8080).startswith("no: ConnectionRefused")
            assert daemon.world.outside.python(CONNECT, HOST, 8081).startswith("hello")

    def test_a_link_that_is_nobodys_is_removed(self) -> None:
        with net_daemon() as daemon, serving(daemon) as job:
            host = daemon.world.host
            host.run("ip", "link", "add", "wk0000000000", "type", "veth", "peer", "name", "stray")
            host.run("ip", "link", "set", "wk0000000000", "master", "worker0")
            daemon.restart()
            daemon.world.wait_links(["worker0", f"wk{job.id}"])

    def test_without_jobs_the_next_daemon_removes_everything(self) -> None:
        with net_daemon() as daemon:
            job = daemon.shell("true", net=BRIDGE)[0]
            assert job.exit_code == 0
            daemon.kill()
            assert "worker0" in daemon.world.links()
            daemon.start()
            daemon.world.wait_links([])
            assert not (daemon.runtime / "network.json").exists()

    def test_a_stop_without_jobs_leaves_nothing(self) -> None:
        with net_daemon() as daemon:
            daemon.shell("true", net=BRIDGE)
            daemon.stop()
            daemon.world.wait_links([])

    def test_rules_that_somebody_flushed_come_back_with_a_restart(self) -> None:
        with net_daemon() as daemon, serving(daemon, 80, Publish(8080, 80)):
            if "map ports" not in rules(daemon):
                pytest.fail("no rules")
            daemon.world.host.run("nft", "flush", "ruleset")
            assert daemon.world.outside.python(CONNECT, HOST, 8080).startswith("no:")
            daemon.restart()
            assert daemon.world.outside.python(CONNECT, HOST, 8080).startswith("hello")


class TestSettings:
    def test_a_reload_takes_the_new_bridge_once_no_job_is_on_the_old(self) -> None:
        with net_daemon() as daemon:
            job_id = daemon.run("sleep", "1000", net=BRIDGE)
            daemon.config.write_text('[network]\nbridge = "other0"\naddresses = "10.44.0.0/24"')
            assert daemon.process is not None
            at = len(daemon.log.read_text())
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_log("the policy was read again", after=at)
            assert (daemon.shell("true", net=BRIDGE)[0].address or "").startswith("10.231.")
            end(daemon, job_id)
            daemon.world.wait_links(["worker0"])
            assert daemon.shell("true", net=BRIDGE)[0].address == "10.44.0.2"
            daemon.world.wait_links(["other0"])

    def test_modes_that_the_policy_does_not_name_are_refused(self) -> None:
        with running(config='[network]\nmodes = ["none"]') as daemon:
            with pytest.raises(NotPermitted, match="network mode bridge is not allowed to you; allowed: none"):
                as_user(NOBODY, run_as_user, str(daemon.socket), Net.BRIDGE)
            with pytest.raises(NotPermitted, match="network mode host is not allowed"):
                as_user(NOBODY, run_as_user, str(daemon.socket), Net.HOST)

    def test_publish_none_is_nobody(self) -> None:
        with running(config='[network]\npublish = "none"') as daemon:
            with pytest.raises(NotPermitted, match="allowed: none"):
                as_user(NOBODY, publish_as_user, str(daemon.socket), 8080)


class TestCommandLine:
    def test_run_and_status(self, net: NetDaemon) -> None:
        ran = net.ctl("run", "-p", "8090:80", "-p", "8091:53/udp", "--name", "web", "sleep", "100")
        assert ran.returncode == 0, ran.stderr
        try:
            text = net.ctl("status", "web").stdout.decode()
            assert re.search(r"bridge, 10\.231\.0\.\d+", text)
            assert "port 8090/tcp leads to 80/tcp" in text
            assert "port 8091/udp leads to 53/udp" in text
        finally:
            end(net, "web")


def live(daemon: Daemon) -> list[Job]:
    with daemon.client() as client:
        jobs = client.call("job.list", protocol.ListParams()).jobs
    return [job for job in jobs if job.state is State.RUNNING]


def run_as_user(path: str, net: Net) -> str:
    with Client(path) as client:
        return str(client.call("job.run", protocol.RunParams(spec=JobSpec(argv=("/bin/true",), net=net))).id)


def test_the_tests_run_beside_the_machines_own_network() -> None:
    before = {name for _, name in socket.if_nameindex()}
    world = World()
    try:
        assert {name for _, name in socket.if_nameindex()} == before
    finally:
        world.close()
