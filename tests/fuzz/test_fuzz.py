"""A short run of each fuzzer, seeded; `make fuzz` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz import parser, rpc
from tests.host.daemon import running
from workerd.cgroup import find_mount

RUNS, REQUESTS, SEED = 100_000, 6_000, 1


def test_no_arguments_break_worker_inits_parser(tmp_path: Path) -> None:
    if parser.clang() is None:
        pytest.skip("clang is not installed: apt-get install clang")
    done = parser.fuzz(RUNS, SEED, tmp_path / "corpus")
    assert done.returncode == 0, done.stdout
    assert f"number_of_executed_units: {RUNS}" in done.stdout


def test_no_request_breaks_the_daemon() -> None:
    if os.geteuid() != 0 or find_mount() is None:
        pytest.skip("needs root and a cgroup2 mount")
    with running() as daemon:
        sent, answers = rpc.run(daemon, REQUESTS, SEED, REQUESTS // 10)
    assert sent >= REQUESTS
    assert answers > sent // 2
