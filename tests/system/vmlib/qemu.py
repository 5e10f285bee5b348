"""One qemu process: its command line, its console log, its end.

Measured on two idle cores under TCG, qemu 7.2, Debian 12, in seconds. To the
login prompt of an untrimmed system: pc 11.4, q35 12.0, microvm 14.8, q35 with
`-cpu qemu64` 17.1 (all others `-cpu max`). So q35 and max. To the agent's
answer, with the units masked that guest/setup.sh names: 7.8 to 8.2.

With tsc=reliable the kernel uses the TSC, which it distrusts under TCG: a clock
reading takes 1.3 µs instead of the HPET's 6.9, and was true to 1 % over 10 s.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vmlib import frames, tools
from vmlib.errors import BootFailed

COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable "
    "systemd.show_status=false systemd.log_color=false rd.udev.log_level=3"
)


@dataclass(frozen=True)
class Hardware:
    """What the guest is made of; sizes in MiB."""

    memory: int = 1536
    cpus: int = 2
    scratch: int = 1024


@dataclass(frozen=True)
class Disks:
    """The disks and what is booted from outside of them."""

    kernel: Path
    initrd: Path
    root: Path  # qcow2
    scratch: Path  # raw
    complaints: Path  # qemu's own stderr


def disk_arguments(path: Path, file_format: str, name: str) -> list[str]:
    # cache=unsafe: qemu still hands a guest's flush to the host's kernel, it
    # only does not wait for the host's disk. A cut of the guest's power loses
    # what the guest had not flushed, as it should, and no more.
    drive = f"file={path},format={file_format},if=none,id={name},cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def command_line(
    accelerator: list[str], hardware: Hardware, disks: Disks, ports: tuple[int, int], append: str
) -> list[str]:
    """qemu's arguments; `ports` are the fds of the agent's and the console's sockets."""
    agent, console = ports
    return [
        tools.find("qemu-system-x86_64") or "qemu-system-x86_64",
        *("-machine", "q35", *accelerator),
        *("-m", str(hardware.memory), "-smp", str(hardware.cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(disks.kernel), "-initrd", str(disks.initrd)),
        *("-append", f"{COMMAND_LINE} {append}".strip()),
        *disk_arguments(disks.root, "qcow2", "root"),
        *disk_arguments(disks.scratch, "raw", "scratch"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={agent}"),
        *("-device", f"virtserialport,chardev=agent,name={frames.PORT_NAME}"),
        *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
    ]


class Qemu:
    """A started qemu. `agent` and `console` are this end of its two ports."""

    def __init__(self, accelerator: list[str], hardware: Hardware, disks: Disks, append: str = "") -> None:
        self.agent, agent = socket.socketpair()
        self.console, console = socket.socketpair()
        arguments = command_line(accelerator, hardware, disks, (agent.fileno(), console.fileno()), append)
        # If we are killed outright, the kernel ends qemu for us.
        self.complaints = disks.complaints
        with agent, console, disks.complaints.open("wb") as complaints:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                pass_fds=(agent.fileno(), console.fileno()),
                # A Ctrl-C is for us: we end the guest in our own order.
                start_new_session=True,
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def wait(self, seconds: float) -> bool:
        """Wait for the end; whether it came."""
        ready, _, _ = select.select([self.pidfd], [], [], seconds)
        return bool(ready)

    def complaint(self) -> str:
        """What qemu said on stderr until now."""
        return self.complaints.read_text(errors="replace").strip()

    def kill(self) -> None:
        """End it as a power cut would. Can be called twice."""
        if self.pidfd < 0:
            return
        if not self.wait(0):
            self.process.send_signal(signal.SIGKILL)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired as error:
            raise BootFailed(f"qemu (pid {self.process.pid}) does not die") from error
        finally:
            os.close(self.pidfd)
            self.pidfd = -1
            self.agent.close()
            self.console.close()
