"""Under the installed, hardened units: a network for jobs, and the users' totals held
by their cgroups."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from vmlib.machine import Machine

CONFIG = "/etc/workerd/workerd.toml"
USERS = "/sys/fs/cgroup/worker.slice/workerd-jobs.service/jobs"


@pytest.fixture(autouse=True)
def policy(vm: Machine) -> Iterator[None]:
    vm.run(["systemctl", "start", "workerd"], check=True)
    vm.sh(f"cp {CONFIG} /root/before.toml")
    yield
    vm.sh(f"cp /root/before.toml {CONFIG}; systemctl reload workerd; workerctl stop --all >/dev/null 2>&1", check=False)


class TestNetwork:
    def test_a_job_on_the_bridge_has_an_address_and_serves_a_port_of_the_machine(self, vm: Machine) -> None:
        serve = "import socket; s = socket.create_server(('', 80)); s.accept()[0].sendall(b'hello\\n')"
        ask = "import socket; print(socket.create_connection(('127.0.0.1', 8080), 10).recv(9).decode())"
        vm.sh("ip link set lo up")
        job = vm.run(["workerctl", "run", "-p", "8080:80", "--", "python3", "-c", serve], check=True).out
        status = json.loads(vm.run(["workerctl", "status", "--json", job], check=True).out)
        assert status["address"].startswith("10.231.")
        asked = f"for n in 1 2 3 4 5 6 7 8 9; do python3 -c \"{ask}\" 2>/dev/null && exit; sleep 1; done; exit 1"
        assert vm.sh(asked).out.strip() == "hello"
        vm.run(["workerctl", "wait", job], check=True)
        vm.sh(f"n=0; while ip link show wk{job} 2>/dev/null && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.2; done")
        assert vm.sh(f"ip link show wk{job}", check=False).returncode != 0


class TestTotals:
    def test_are_in_the_users_cgroup_and_follow_a_reload(self, vm: Machine) -> None:
        vm.sh(f"printf '[user]\\nmemory = \"300M\"\\npids = 20\\ncpus = 0.5\\n' > {CONFIG}; systemctl reload workerd")
        uid = vm.sh("id -u alice").out
        vm.sh("cd / && runuser -u alice -g worker -- workerctl run -m 100M --pids 5 sleep 600")
        read = f"cd {USERS}/uid-{uid} && cat memory.max pids.max cpu.max"
        assert vm.sh(read).out.split() == [str(300 << 20), "21", "50000", "100000"]
        vm.sh(f"printf '[user]\\nmemory = \"200M\"\\n' > {CONFIG}; systemctl reload workerd")
        wanted = f"[ $(cat {USERS}/uid-{uid}/memory.max) = {200 << 20} ]"
        until = f"n=0; until {wanted}; do n=$((n + 1)); [ $n -lt 50 ]; sleep 0.2; done"
        vm.sh(f"set -e; {until}")
        assert vm.sh(read).out.split() == [str(200 << 20), "max", "max", "100000"]
