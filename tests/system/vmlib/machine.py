"""A machine: started, used, rebooted, cut off from power, started again.

Its disks last from making it to the end of its run directory; its memory lasts
one start. qemu is started with -no-reboot, so a reboot is the end of one qemu
and the start of the next, and the agent's stream begins afresh.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType

from vmlib import accel, tools
from vmlib.channel import Channel, Command, Result
from vmlib.errors import BootFailed, MachineGone
from vmlib.notice import say
from vmlib.qemu import Disks, Hardware, Qemu
from vmlib.serial import Serial

# Deadlines in seconds, for a busy two-core host under TCG: ten times what is usual.
BOOT_SECONDS = 300.0
FIRST_BOOT_SECONDS = 150.0  # eight when idle, under fifty on a busy host
SHUTDOWN_SECONDS = 180.0
COMMAND_SECONDS = 600.0


class Machine:
    """One virtual machine in `directory`; use it in a with statement, or call stop()."""

    def __init__(
        self,
        directory: Path,
        *,
        kernel: Path,
        initrd: Path,
        disk: Path,
        hardware: Hardware | None = None,
        append: str = "",
        console: Callable[[bytes], object] | None = None,
    ) -> None:
        tools.require("qemu-system-x86_64", "qemu-img", "mke2fs")
        self.hardware = hardware or Hardware()
        self.append = append
        self.console = console
        self.log = directory / "console.log"
        self.disks = Disks(
            kernel=kernel,
            initrd=initrd,
            root=directory / "root.qcow2",
            scratch=directory / "scratch.img",
            complaints=directory / "qemu.log",
        )
        self.qemu: Qemu | None = None
        self.boot_seconds = 0.0
        make_overlay(disk, self.disks.root)
        make_scratch(self.disks.scratch, self.hardware.scratch)

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- power -------------------------------------------------------------

    def start(self) -> None:
        """Boot until the agent answers. Raises BootFailed with the console's end."""
        if self.qemu is not None:
            raise BootFailed("the machine is running already")
        started = time.monotonic()
        try:
            self.power_on()
            if not self.channel.wait_hello(FIRST_BOOT_SECONDS):
                # Seen once on a busy host: an emulated machine that never printed a line.
                say(f"no answer in {FIRST_BOOT_SECONDS:.0f} s, trying once more …")
                self.stop()
                self.power_on()
                if not self.channel.wait_hello(BOOT_SECONDS):
                    raise BootFailed(self.describe(f"no answer in {BOOT_SECONDS:.0f} s"))
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - started

    def power_on(self) -> None:
        """Start qemu, with KVM where that is known or found to work."""
        accelerator = accel.choose()
        self.launch(accelerator)
        if accel.is_proven(accelerator):
            return
        if self.serial.wait_for(accel.FIRST_LINE, accel.FIRST_LINE_SECONDS):
            accel.remember(accelerator)
            return
        self.stop()
        accel.remember("tcg")
        self.launch("tcg")

    def launch(self, accelerator: str) -> None:
        self.accelerator = accelerator
        self.qemu = Qemu(accel.ARGUMENTS[accelerator], self.hardware, self.disks, self.append)
        self.serial = Serial(self.qemu.console, self.log, self.console)
        self.channel = Channel(self.qemu.agent)

    def describe(self, reason: str) -> str:
        said = self.qemu.complaint() if self.qemu else ""
        return f"{reason}\n{said}\n--- the console's end ---\n{self.serial.tail()}"

    def is_up(self) -> bool:
        """Whether qemu runs and its agent can be asked."""
        return self.qemu is not None and self.channel.gone is None and not self.qemu.wait(0)

    def stop(self) -> None:
        """End qemu at once, as a power cut does. Can be called twice."""
        if self.qemu is None:
            return
        qemu, self.qemu = self.qemu, None
        qemu.kill()

    power_cut = stop

    def wait_end(self, seconds: float = SHUTDOWN_SECONDS) -> None:
        """Wait until the guest has powered off or rebooted by itself. Raises MachineGone."""
        if self.qemu is not None and not self.qemu.wait(seconds):
            raise MachineGone(self.describe(f"still running after {seconds:.0f} s"))
        self.stop()

    def shut_down(self, verb: str = "poweroff") -> None:
        """Let systemd end everything in order, and wait for it."""
        with contextlib.suppress(MachineGone):  # the agent is ended with the rest
            self.popen(["systemctl", verb]).wait()
        self.wait_end()

    def reboot(self) -> None:
        """The guest's own orderly reboot; returns when the agent answers again."""
        self.shut_down("reboot")
        self.start()

    # --- commands ----------------------------------------------------------

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = COMMAND_SECONDS,
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
    ) -> Command:
        """Start a command and return at once; its stdin stays open.

        It begins in its user's home, in a session of its own. Sinks, where
        given, take the output instead of Command.output and .errors.
        """
        if self.qemu is None:
            raise MachineGone("the machine is not running")
        return self.channel.start(argv, env=env, cwd=cwd, user=user, timeout=timeout, stdout=stdout, stderr=stderr)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = False,
        input: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = COMMAND_SECONDS,
    ) -> Result:
        """Run a command to its end.

        Raises CommandFailed when it times out, or, with `check`, on a code
        other than 0; MachineGone when the machine ends under it.
        """
        command = self.popen(argv, env=env, cwd=cwd, user=user, timeout=timeout)
        command.write(input)
        command.close_stdin()
        result = command.wait()
        return result.check() if check or result.timed_out else result

    def sh(
        self,
        script: str,
        *,
        check: bool = True,
        input: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = COMMAND_SECONDS,
    ) -> Result:
        """The same for a piece of shell; a failure raises unless `check` is False."""
        return self.run(
            ["sh", "-c", script],
            check=check,
            input=input,
            env=env,
            cwd=cwd,
            user=user,
            timeout=timeout,
        )

    def wait_booted(self) -> str:
        """Wait until systemd has started everything; "running" or "degraded"."""
        return self.run(["systemctl", "is-system-running", "--wait"]).out

    # --- files -------------------------------------------------------------

    def push(self, local: Path, remote: str) -> None:
        """Copy a file or a tree into the guest as `remote`, owned by root."""
        target = PurePosixPath(remote)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(local, arcname=target.name)
        parent = str(target.parent)
        self.run(["mkdir", "-p", parent], check=True)
        unpack = ["tar", "-x", "--no-same-owner", "-C", parent]
        self.run(unpack, check=True, input=buffer.getvalue())

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or a tree of the guest into the directory `local`, under its own name."""
        target = PurePosixPath(remote)
        archive = self.run(["tar", "-c", "-C", str(target.parent), target.name], check=True)
        local.mkdir(parents=True, exist_ok=True)
        tools.run(["tar", "-x", "--no-same-owner", "-C", local], stdin=archive.stdout)


def make_overlay(backing: Path, overlay: Path) -> None:
    """A qcow2 that keeps the differences from `backing`, named by a relative path."""
    file_format = "raw" if backing.suffix == ".img" else "qcow2"
    relative = os.path.relpath(backing.resolve(), overlay.parent.resolve())
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", relative, "-F", file_format]
    tools.run([*create, overlay])


def make_scratch(path: Path, size: int) -> None:
    """An empty ext4 disk of `size` MiB, sparse: the guest's /dev/vdb."""
    with path.open("wb") as file:
        file.truncate(size << 20)
    lazy = "lazy_itable_init=1,lazy_journal_init=1"
    tools.run(["mke2fs", "-q", "-t", "ext4", "-L", "data", "-m", "0", "-E", lazy, path])
