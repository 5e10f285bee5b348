"""Figures on this machine, each beside what it is compared with, taken by turns in one run.

Needs root and a cgroup2 mount. Prints tables and whether each goal is reached; writes
build/bench/figures.json and, where matplotlib is installed, build/bench/figures.svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import (
    cluster,
    command_line,
    figures,
    growth,
    guard,
    launch,
    output,
    peers,
    python_api,
    remote,
    report,
    restart,
    rpc,
    startup,
    system_call,
)
from tests.bench.installed import compiled_modules
from tests.host.daemon import ROOT

CASES: dict[str, Callable[[], object]] = {
    "launch": launch.run,
    "throughput": launch.throughput,
    "command-line": command_line.run,
    "start-up": startup.run,
    "rpc": rpc.run,
    "python": python_api.run,
    "restart": restart.run,
    "growth": growth.run,
    "history": growth.history,
    "output": output.run,
    "system-call": system_call.run,
    "peers": peers.run,
    "remote": remote.run,
    "cluster": cluster.run,
}
QUICK = ("launch", "throughput", "command-line", "start-up", "rpc")
"""what the guard runs: about two minutes"""
PAGE, COMMITTED = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.json"
BUILT = ROOT / "build" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"which ones: {', '.join(CASES)} (default: all)")
    parser.add_argument("--commit", action="store_true", help="put the figures into docs/performance.md and .json")
    parser.add_argument("--check", action="store_true", help="compare ratios with docs/performance.json")
    options = parser.parse_args()
    names = options.case or (QUICK if options.check else CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    with compiled_modules():
        for name in names:
            CASES[name]()
    made = report.make(figures.recorded)
    if options.commit:
        if options.case and COMMITTED.exists():
            made = report.merged(report.read_json(COMMITTED), made)
        report.write_json(made, COMMITTED)
        report.write_page(made, PAGE)
    _write(made)
    return _check(made) if options.check else 0


def _write(made: report.Report) -> None:
    report.write_json(made, BUILT / "figures.json")
    try:
        report.plot(made, BUILT / "figures.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (pip install '.[bench]')", file=sys.stderr)


def _check(made: report.Report) -> int:
    committed = report.read_json(COMMITTED).recorded
    worse = guard.regressions(made.recorded, committed)
    for line in worse:
        print(f"worse by more than {guard.MARGIN:.0%}: {line}", file=sys.stderr)
    print(f"\n{guard.compared(made.recorded, committed)} ratios compared with the committed ones, {len(worse)} worse")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
