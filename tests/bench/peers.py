"""What needs systemd or all controllers: the peers that run commands with limits, in the
virtual machine, each by turns with ours.

Under emulation processes are some 25 times slower than natively, for everybody alike.
"""

from __future__ import annotations

import json
import shutil
import sys

from tests.bench.figures import HERE, Table, compiled, goal, leave_out, ratio, show
from tests.host.daemon import ROOT

sys.path.insert(0, str(ROOT / "tests" / "system"))

PACKAGES = ("bubblewrap", "crun", "firejail", "podman", "runc")
GUEST_PYTHON = "/usr/local/lib/worker/bin/python"
OURS, COMMAND = "workerd, job.run to exit seen", "workerctl run --wait true"
GOALS = (("crun run", 1 / 4), ("systemd-run --wait, isolated", 1 / 5))
SECONDS = 1800


def run() -> None:
    from vmlib import image, layer
    from vmlib.errors import MissingTool

    if shutil.which("mmdebstrap") is None and shutil.which("apt-get") is None:
        leave_out("peers in the virtual machine: mmdebstrap is not installed")
        return
    try:
        with (
            layer.machine(image.default_release(), ROOT, more=PACKAGES) as machine,
            compiled("bareloop.c") as bareloop,
            compiled("launchload.c") as load,
        ):
            machine.start()
            machine.sh("systemctl start workerd")
            machine.push(bareloop, "/root/bareloop")
            machine.push(load, "/root/launchload")
            machine.push(HERE / "guest_peers.py", "/root/peers.py")
            done = machine.run([GUEST_PYTHON, "/root/peers.py"], check=True, timeout=SECONDS)
    except MissingTool as error:
        leave_out(f"peers in the virtual machine: {error}")
        return
    _show(done.out)


def _show(text: str) -> None:
    answer = json.loads(text.splitlines()[-1])
    for line in answer["left_out"]:
        leave_out(line)
    launches = show("launch of true in the virtual machine, isolated", answer["launch"], "bare C loop")
    for peer, limit in GOALS:
        if peer in answer["launch"]:
            goal(f"launch / {peer}, in the virtual machine", ratio(launches, OURS, peer), limit)
    lines = show("command line in the virtual machine", answer["command line"], "python3 -I -c pass")
    _beats_systemd_run(lines)


def _beats_systemd_run(table: Table) -> None:
    goal(
        "workerctl run --wait / systemd-run --wait --pipe, in the virtual machine",
        ratio(table, COMMAND, "systemd-run --wait --pipe"),
        1,
    )
