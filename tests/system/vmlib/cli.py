"""The command for people: build, run, script, shell, clean."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmlib import cache, console, image, layer
from vmlib.channel import Command
from vmlib.errors import MachineGone, VMError
from vmlib.machine import Machine
from vmlib.notice import say
from vmlib.qemu import Hardware

EPILOG = """\
examples:
  vm run -- systemctl status workerd       boot the installed system, run that, say how it ended
  vm run -- sh -c 'workerctl run --wait -- echo hello'
  echo hello | vm run --base -- cat        the bare Debian, without the product; input goes in
  vm script demo.sh first second           run a script of yours in it, with arguments
  vm run --release trixie -- uname -r      another Debian release
  vm shell                                 a root shell on the serial console; Ctrl-] leaves
  vm build                                 only make the images, so that the rest is quick

The guest is Debian with systemd, the unified cgroup hierarchy, two ordinary
users (alice, bob), no network, and a second disk, /dev/vdb, that `mount /data`
mounts. Every run starts from the same image and leaves nothing behind.

The command's output goes to stdout and stderr as it is, all else to stderr.
The code is the command's own (128 + n after signal n); 125 when the machine
itself failed, 130 after Ctrl-C.

environment:
  WORKER_VM_CACHE     where images are kept (default: ${XDG_CACHE_HOME:-~/.cache}/worker-vm)
  WORKER_VM_RELEASE   the Debian release, where --release says none
  WORKER_VM_ACCEL     kvm or tcg, instead of trying
  WORKER_VM_SOURCES   an apt sources file, instead of the machine's own
"""

OWN_FAILURE = 125
TREE = Path(__file__).resolve().parents[3]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vm",
        description="A virtual machine with the product installed, for trying and testing it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--release", choices=image.RELEASES, default=image.default_release())
    common.add_argument("--base", action="store_true", help="without the product installed")
    sized = argparse.ArgumentParser(add_help=False)
    default = Hardware()
    sized.add_argument("--memory", type=int, default=default.memory, metavar="MIB")
    sized.add_argument("--cpus", type=int, default=default.cpus, metavar="N")
    sized.add_argument("-v", "--verbose", action="store_true", help="show the guest's console on stderr")
    verbs.add_parser("build", parents=[common], help="make the images, or find them made")
    run = verbs.add_parser("run", parents=[common, sized], help="boot, run a command as root")
    run.add_argument("--user", help="run as this user of the guest instead")
    run.add_argument("command", nargs="+", metavar="CMD", help="after --: the command")
    script = verbs.add_parser("script", parents=[common, sized], help="boot, run a script as root")
    script.add_argument("file", type=Path, metavar="FILE")
    script.add_argument("argument", nargs="*", metavar="ARG")
    verbs.add_parser("shell", parents=[common, sized], help="boot, a console for you")
    verbs.add_parser("clean", help="remove all images that are not in use")
    return top


@contextlib.contextmanager
def booted(options: argparse.Namespace, append: str = "") -> Iterator[Machine]:
    """A started machine as the options say; ended at the end, whatever it is."""
    hardware = Hardware(memory=options.memory, cpus=options.cpus)
    show = console.show if append else show_on_stderr if options.verbose else None
    tree = None if options.base else TREE
    with layer.machine(options.release, tree, hardware, append, show) as machine:
        say(f"booting Debian {options.release} …")
        machine.start()
        say(f"booted in {machine.boot_seconds:.1f} s ({machine.accelerator})")
        yield machine


def show_on_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def write_to(fd: int, data: bytes) -> None:
    """All of it, unbuffered, so that it is out when the command is over."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def feed(command: Command) -> None:
    """Hand our stdin on, until it ends or the machine does."""
    with contextlib.suppress(MachineGone, OSError):
        while data := os.read(0, 65536):
            command.write(data)
        command.close_stdin()


def run(machine: Machine, argv: Sequence[str], user: str | None = None) -> int:
    """Run it with our own stdin, stdout and stderr; its code, the shell's way."""
    command = machine.popen(
        argv,
        user=user,
        timeout=None,
        stdout=lambda data: write_to(1, data),
        stderr=lambda data: write_to(2, data),
    )
    if os.isatty(0):  # a terminal's user would be asked for an end of input
        command.close_stdin()
    else:
        threading.Thread(target=feed, args=[command], daemon=True).start()
    try:
        code = command.wait().returncode
    except MachineGone as error:
        raise MachineGone(machine.describe(str(error))) from error
    return code if code >= 0 else 128 - code


def do(options: argparse.Namespace) -> int:
    if options.verb == "clean":
        return clean()
    if options.verb == "build":
        with layer.disk(options.release, None if options.base else TREE) as built:
            say(f"ready: {built.disk}")
        return 0
    if options.verb == "shell":
        with booted(options, console.KERNEL_ARGUMENT) as machine:
            console.attend(machine)
        return 0
    if options.verb == "script":
        return run_script(options)
    with booted(options) as machine:
        return run(machine, options.command, options.user)


def run_script(options: argparse.Namespace) -> int:
    try:
        text: bytes = options.file.read_bytes()
    except OSError as error:
        raise VMError(f"{options.file}: {error.strerror}") from error
    inside = f"/root/{options.file.name}"
    interpreter = [] if text.startswith(b"#!") else ["sh"]
    with booted(options) as machine:
        machine.push(options.file, inside)
        machine.run(["chmod", "0700", inside], check=True)
        return run(machine, [*interpreter, inside, *options.argument])


def clean() -> int:
    for shelf in ("product", "base", "wheels"):
        cache.prune(cache.root() / shelf, keep=0)
    with cache.run_directory():  # making one removes what killed runs have left
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    options = parser().parse_args(arguments)
    # SIGTERM and SIGHUP unwind like an exception, so that qemu is ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        return do(options)
    except VMError as error:
        say(str(error))
        return OWN_FAILURE
    except KeyboardInterrupt:
        say("interrupted")
        return 130
