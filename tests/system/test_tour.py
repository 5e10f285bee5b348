"""The tour of the documentation, typed as it stands there; and jobs as commands of systemd-run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from vmlib.machine import Machine

from tools import tour
from tools.theatre import STAGE

FULL = (
    "--name full --mem 64M --swap 16M --cpus 0.5 --cpu-weight 50 --cpuset 0 --pids 30 --io-read-bps 50M "
    "--io-weight 200 --timeout 1h --grace 5s --stop-signal INT --restart on-failure:2 --label team=x --rw /srv "
    "--ro /opt --tmpfs /mnt:1M --read-only --max-output 1M --priority 3"
)


class TestTour:
    # Its commands one after the other, as `make tour` types them.
    def test_every_command_succeeds(self, vm: Machine) -> None:
        steps = [*tour.SETTING, *tour.commands(tour.PAGE.read_text())]
        inside = f"/root/{Path(STAGE).name}"
        vm.push(STAGE, inside)
        done = vm.run(["python3", inside], input=json.dumps(steps).encode(), timeout=500)
        played = json.loads(done.stdout)
        assert [step["command"] for step in played if step["status"] != 0] == [] and len(played) == len(steps)
        vm.sh("workerctl stop --all; workerctl prune --all; rm -f ~/here", user="alice", check=False)


class TestAsSystemdRun:
    @pytest.mark.parametrize("options", ["--name plain", FULL, "--name bound --mem 32M --bind /srv:/mnt:ro"])
    def test_systemd_takes_the_command_and_holds_the_limits(self, vm: Machine, options: str) -> None:
        name = options.split()[1]
        vm.sh("systemctl start workerd; usermod -aG worker alice; chmod 1777 /srv")
        vm.sh(f"cd; workerctl run {options} -- sh -c 'echo $0; exec sleep 1000' in", user="alice")
        line = vm.sh(f"workerctl inspect --as systemd-run {name} 2>/dev/null").out
        vm.sh(f"workerctl rm -f {name}")
        assert shlex.split(line)[0] == "systemd-run"
        try:
            vm.sh(line)
            unit = f"worker-{name}.service"
            wanted = "ActiveState,User,MemoryMax,CPUQuotaPerSecUSec,TasksMax,OOMPolicy"
            shown = vm.sh(f"systemctl show {unit} -p {wanted}").out.splitlines()
            assert "ActiveState=active" in shown and "User=1000" in shown
            if "--mem" in options:
                assert "OOMPolicy=kill" in shown
            if name == "full":
                assert {f"MemoryMax={64 << 20}", "CPUQuotaPerSecUSec=500ms", "TasksMax=30"} <= set(shown)
            assert "in" in vm.sh(f"journalctl -u {unit} -o cat").out.splitlines()
        finally:
            vm.sh(f"systemctl stop worker-{name}.service", check=False)
