"""The machine that all system tests share: booted once, with this checkout installed.

    def test_it(vm: Machine) -> None:
        vm.run(["workerctl", "ps"], check=True, user="alice").out
        vm.sh("systemctl restart workerd")

A test may reboot it or cut its power; if it leaves it off, the next test finds
it started again. Files that a test makes in the guest stay for the later ones.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from vmlib import image, layer
from vmlib.errors import MissingTool, VMError
from vmlib.machine import Machine
from vmlib.notice import say

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
JOURNAL = ["journalctl", "--no-pager", "--lines=60", "--output=short-monotonic"]
TEST_SECONDS = 1200  # some 25 times slower than a real machine, on a busy host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.vm)
        if item.get_closest_marker("timeout") is None:
            # The fixture that builds and boots has deadlines of its own.
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


Boot = Callable[[str, Path | None], contextlib.AbstractContextManager[Machine]]


@pytest.fixture(scope="session")
def boot(request: pytest.FixtureRequest) -> Boot:
    """A machine of a release, booted, with what is in a tree installed, or bare; skips where
    none can be. The build's progress goes to the terminal, not into a capture."""
    if os.environ.get("WORKER_SKIP_SYSTEM"):
        pytest.skip("WORKER_SKIP_SYSTEM is set")
    if platform.machine() != "x86_64":
        pytest.skip(f"the virtual machine is x86_64, this is {platform.machine()}")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    @contextlib.contextmanager
    def booted(release: str, tree: Path | None) -> Iterator[Machine]:
        with contextlib.ExitStack() as stack:
            with capture.global_and_fixture_disabled():
                print(file=sys.stderr)  # pytest's line is half written
                try:
                    machine = stack.enter_context(layer.machine(release, tree))
                except MissingTool as error:
                    pytest.skip(str(error))
                say(f"booting Debian {release} for the system tests …")
                machine.start()
                state = machine.wait_booted()
                say(f"booted in {machine.boot_seconds:.1f} s ({machine.accelerator}), {state}")
            yield machine

    return booted


@pytest.fixture(scope="session")
def vm(boot: Boot) -> Iterator[Machine]:
    """The shared machine."""
    with boot(image.default_release(), TREE) as machine:
        yield machine


@pytest.fixture(autouse=True)
def machine_is_up(request: pytest.FixtureRequest) -> None:
    """Start the machine again where a test has left it off, or has brought it down."""
    if "vm" in request.fixturenames:
        machine: Machine = request.getfixturevalue("vm")
        if not machine.is_up():
            machine.stop()
            machine.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report also has what the guest has to say about it."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("vm")
    if report.failed and isinstance(machine, Machine):
        try:
            text = machine.run(JOURNAL, timeout=60).out
        except VMError as error:
            text = f"{error}\n{machine.describe('')}"
        report.sections.append(("the guest", text))
    return report
