"""`make pictures`: docs/pictures/*.svg, from the real workerctl at work in the virtual machine."""

from __future__ import annotations

import sys
from pathlib import Path

from tools import drawing, theatre
from tools.theatre import ROOT, Step

WHERE = ROOT / "docs" / "pictures"
COLUMNS = 120
LIMITS = '[users.bob]\\nmemory = "160M"\\n'
HOLD = "x = bytearray({} << 20); sum(iter(int, 1))"
"""Python that has so many MiB and keeps a CPU busy"""

JOBS: list[Step] = [
    {"command": "usermod -aG worker alice; usermod -aG worker bob"},
    {"command": f"printf '{LIMITS}' >> /etc/workerd/workerd.toml; systemctl restart workerd"},
    {"user": "alice", "command": "workerctl run --name fit --mem 32M -- python3 -c 'x = bytearray(200 << 20)'"},
    {"user": "alice", "command": "workerctl wait fit || true"},
    {"user": "alice", "command": "workerctl run --wait --name lint sh -c 'echo main.c:3: unused; exit 2' || true"},
    {"user": "alice", "command": "workerctl run --wait --name hello echo 'héllo, 世界'"},
    {"user": "alice", "command": f"workerctl run --name index --mem 96M --cpus 0.6 python3 -c '{HOLD.format(84)}'"},
    {"user": "alice", "command":
        "workerctl run --name backup -m 64M sh -c 'while cat /usr/bin/*; do :; done >/dev/null'"},
    {"user": "bob", "command": f"workerctl run --name render --mem 128M --cpus 0.3 --label team=films "
        f"--timeout 1h --pids 20 python3 -c '{HOLD.format(40)}'"},
    {"user": "bob", "command": "workerctl run --name encode --mem 64M -- ffmpeg -i in.mov out.webm"},
    {"user": "alice", "command": "workerctl run --name notes --mem 16M sleep 1d; workerctl pause notes"},
    {"user": "alice", "command": "workerctl run --name typo maek all || true"},
    {"user": "alice", "command": "workerctl run --name over --timeout 1s sleep 100; workerctl wait over || true"},
    {"user": "alice", "command": "workerctl run --name sync --restart on-failure:50 sh -c 'sleep 1; exit 7'"},
    {"user": "alice", "command": "workerctl run --name report --after index:ok ./report.sh"},
]  # fmt: skip
PICTURES: dict[str, Step] = {
    "ps": {"command": "workerctl ps -a"},
    "status": {"command": "workerctl status render"},
    "explain": {"command": "workerctl explain fit"},
    "top": {"command": "workerctl top", "watch": 45, "keys": "q", "rows": 18, "columns": 100},
    "stats": {"command": "workerctl stats --no-stream"},
}
"""of each picture the step that it shows, as root sees it"""


def make(jobs: list[Step], pictures: dict[str, Step], where: Path, command: list[str] | None = None) -> None:
    """Plays `jobs`, then `pictures`, and draws these into `where`."""
    steps = [{"columns": COLUMNS, **step} for step in (*jobs, *pictures.values())]
    played = theatre.play(steps, command)
    theatre.must_succeed(played)
    where.mkdir(exist_ok=True)
    for name, step in zip(pictures, played[len(jobs) :], strict=True):
        prompt = b"" if "keys" in step else f"$ {step['command']}\r\n".encode()
        svg = drawing.draw(step["command"], prompt + step["output"], step["columns"], step.get("rows", 40))
        (where / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    make(JOBS, PICTURES, WHERE)
    sys.exit(0)
