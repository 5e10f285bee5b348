"""Imports point down (design.md, part 10): who may import whom, read from the sources.

Add a new module of workerd to LAYERS, in the lowest place that its imports allow.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workerctl
import workerd

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "units",
        "inotify",
        "procfs",
        "sdnotify",
        "walltimer",
        "journal",
        "sealedprogram",
        "fairshare",
        "retrying",
        "serialthread",
    ),
    ("job events recentanswers", "slowcalls", "output", "zygote"),
    ("configfile netconfig config",),
    ("protocol", "fdpass", "auth", "account", "database eventstore store storethread"),
    (
        "schedule",
        "restarting",
        "blockdev cgroupfiles cgrouplimits limitsnapshot jobcgroup cgroup",
        "addresspool bridge nft hostports resolver network",
        "exitrecord jobrecord outcome jobfiles sandbox startstatus startgate untold endings launcher totals admission",
        "followers",
        "eventboard",
        "trylog",
        "passedfds clientfds",
        "room",
        "batch",
    ),
    (
        "chronicle",
        "backlog clearing heldfiles evidence registry comingfiles salvage storedoutput usertotals limitwatch "
        "supervisor execution queue pausing stopping deadlines updating removal history latestart recovery",
    ),
    ("gate outbox service eventmethods jobmethods ttymethods connection server daemon",),
    ("__main__",),
)
"""From the bottom up. A module may import all of the layers below it and, of its own
layer, only what stands before it in its own family (one string)."""

FOR_WORKERCTL = {"errors", "units", "job", "events", "protocol", "fdpass", "output"}
"""All of workerd that workerctl may import: a command must start quickly."""

NOT_PACKAGED = {"init.build"}
"""Compiles worker-init; no part of the daemon."""

DAEMON = Path(workerd.__file__).parent
CLIENT = Path(workerctl.__file__).parent


def modules(package: Path) -> dict[str, Path]:
    """By name within the package; the package itself is the empty name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, package: str) -> Iterator[str]:
    """The modules of `package` that this file imports, wherever in it."""
    known = modules(DAEMON if package == "workerd" else CLIENT)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: write imports in full, not relative"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            inner = name.removeprefix(package).removeprefix(".") if f"{name}.".startswith(f"{package}.") else None
            while inner and inner not in known:
                inner = inner.rpartition(".")[0]
            if inner:
                yield inner


def placed() -> dict[str, tuple[int, int, int]]:
    """Each module's layer, family and place in the family."""
    return {
        module: (layer, family, place)
        for layer, families in enumerate(LAYERS)
        for family, chain in enumerate(families)
        for place, module in enumerate(chain.split())
    }


def refusal(importer: str, target: str) -> str | None:
    """Why it may not, or None where it may."""
    layer, family, place = placed()[importer]
    other_layer, other_family, other_place = placed()[target]
    if other_layer < layer or ((other_layer, other_family) == (layer, family) and other_place < place):
        return None
    where = "above it" if other_layer > layer else "beside it, in the same layer"
    return f"workerd.{importer} imports workerd.{target}, which is {where}"


DAEMON_MODULES = sorted(set(modules(DAEMON)) - NOT_PACKAGED - {"", "init"})


class TestDaemon:
    @pytest.mark.parametrize("module", DAEMON_MODULES)
    def test_every_module_has_its_place(self, module: str) -> None:
        assert module in placed(), (
            f"workerd.{module} is in no layer: add it to LAYERS in tests/unit/test_imports.py, "
            "in the lowest place that its imports allow"
        )

    def test_no_module_has_two_places(self) -> None:
        names = [module for families in LAYERS for chain in families for module in chain.split()]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize("module", DAEMON_MODULES)
    def test_imports_point_down(self, module: str) -> None:
        targets = set(imported(modules(DAEMON)[module], "workerd"))
        unplaced = (targets | {module}) - set(placed())
        assert not unplaced, f"in no layer: {', '.join(sorted(unplaced))}"
        complaints = [complaint for target in sorted(targets) if (complaint := refusal(module, target))]
        assert not complaints, "; ".join(complaints)

    @pytest.mark.parametrize("module", sorted(modules(DAEMON)))
    def test_the_daemon_knows_nothing_of_the_client(self, module: str) -> None:
        assert not set(imported(modules(DAEMON)[module], "workerctl"))


class TestClient:
    @pytest.mark.parametrize("module", sorted(modules(CLIENT)))
    def test_imports_only_the_light_part_of_the_daemon(self, module: str) -> None:
        excess = set(imported(modules(CLIENT)[module], "workerd")) - FOR_WORKERCTL
        assert not excess, f"workerctl.{module} imports {', '.join(f'workerd.{name}' for name in sorted(excess))}"


class TestCost:
    """What an import must not bring with it: each is tens of milliseconds at every start."""

    @pytest.mark.parametrize(
        ("module", "unwanted"),
        [
            ("workerctl.cli", {"asyncio", "rich", "pyroute2", "cgroupspy", "sqlite3", "ctypes", "msgspec", "argparse"}),
            ("workerctl", {"asyncio", "rich", "pyroute2", "cgroupspy", "sqlite3", "ctypes", "argparse"}),
            ("workerctl.client", {"asyncio", "rich", "pyroute2", "cgroupspy", "sqlite3", "concurrent.futures"}),
            ("workerctl.executor", {"rich", "pyroute2", "cgroupspy", "sqlite3"}),
            ("workerd.__main__", {"rich", "pyroute2"}),
        ],
    )
    def test_what_is_heavy_comes_when_it_is_needed(self, module: str, unwanted: set[str]) -> None:
        code = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=DAEMON.parent, capture_output=True, text=True, check=True
        )
        assert ran.stdout.split() == []


class TestTheTestItself:
    def test_an_import_upwards_or_sideways_is_refused(self) -> None:
        assert refusal("job", "errors") is None
        assert refusal("launcher", "sandbox") is None
        assert refusal("errors", "job") == "workerd.errors imports workerd.job, which is above it"
        assert (
            refusal("trylog", "cgroup")
            == "workerd.trylog imports workerd.cgroup, which is beside it, in the same layer"
        )
        assert refusal("sandbox", "launcher") is not None

    def test_all_ways_to_import_are_seen(self, tmp_path: Path) -> None:
        source = tmp_path / "source.py"
        source.write_text(
            "import os, workerd.job\nfrom workerd import errors, __version__\nimport workerdx.auth\n"
            "def later():\n    from workerd.store import Store\n    import workerd.config as c\n"
        )
        assert set(imported(source, "workerd")) == {"job", "errors", "store", "config"}
