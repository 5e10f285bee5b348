"""System calls that no job may make."""

from __future__ import annotations

import errno
import platform
import re
import signal
from pathlib import Path

import pytest

from tests.host.attackers import Attacker
from tests.host.daemon import Daemon
from workerd.errors import NotPermitted
from workerd.sandbox import CAPABILITIES

DENIED = """
    mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr unshare setns chroot
    reboot kexec_load kexec_file_load init_module finit_module delete_module settimeofday clock_settime clock_adjtime
    swapon swapoff acct syslog vhangup quotactl quotactl_fd lookup_dcookie add_key request_key keyctl bpf
    perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register open_by_handle_at kcmp fanotify_init
    mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages
    iopl ioperm modify_ldt uselib ustat sysfs _sysctl create_module query_module get_kernel_syms nfsservctl
""".split()
AF_ALG, AF_VSOCK = 38, 40
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
F_SETLEASE, F_SETDELEG = 1024, 1040
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers here are x86_64's")


def numbers() -> dict[str, int]:
    for header in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if Path(header).exists():
            found = re.findall(r"#define __NR_(\w+)\s+(\d+)", Path(header).read_text())
            return {name: int(number) for name, number in found}
    pytest.skip("no kernel headers")


def own_capabilities() -> tuple[str, ...]:
    """All that a daemon started from here can give."""
    status = Path("/proc/self/status").read_text()
    permitted = int(re.search(r"CapPrm:\s*(\w+)", status)[1], 16)  # type: ignore[index]
    return tuple(name for name, number in CAPABILITIES.items() if permitted >> number & 1)


class TestDenied:
    def test_every_call_of_the_list_is_refused(self, attacker: Attacker) -> None:
        known = numbers()
        wanted = {str(known[name]): name for name in DENIED}
        _, text = attacker.run(str(attacker.probe), "deny", *wanted)
        got = {wanted[number]: int(code) for number, code in (line.split() for line in text.splitlines())}
        assert got == dict.fromkeys(DENIED, errno.EPERM)

    def test_nor_does_a_capability_open_one(self, daemon: Daemon, place: Path) -> None:
        """It is the filter that refuses, not the lack of a right."""
        known = numbers()
        attacker = Attacker(daemon, 0, place)
        words = [str(known[name]) for name in DENIED]
        _, text = attacker.run(str(attacker.probe), "deny", *words, cap_add=own_capabilities())
        assert [line.split()[1] for line in text.splitlines()] == [str(errno.EPERM)] * len(DENIED)

    def test_clone3_and_what_is_not_known_are_absent(self, attacker: Attacker) -> None:
        _, text = attacker.run(str(attacker.probe), "deny", "435", "463", "467", "480", "1000", "1073741823")
        assert {int(line.split()[1]) for line in text.splitlines()} == {errno.ENOSYS}
        assert len(text.splitlines()) == 6

    @pytest.mark.parametrize("flag", [CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWUSER | 1 << 40])
    def test_clone_makes_no_namespace(self, attacker: Attacker, flag: int) -> None:
        _, text = attacker.run(str(attacker.probe), "call", "56", str(flag | signal.SIGCHLD))
        assert text == f"E{errno.EPERM}\n"

    @pytest.mark.parametrize("family", [AF_ALG, AF_VSOCK, AF_ALG | 1 << 32, AF_VSOCK | 5 << 33])
    def test_no_socket_of_those_families(self, attacker: Attacker, family: int) -> None:
        _, text = attacker.run(str(attacker.probe), "call", "41", str(family), "5")
        assert text == f"E{errno.EPERM}\n"

    @pytest.mark.parametrize("command", [F_SETLEASE, F_SETDELEG, F_SETLEASE | 1 << 32])
    def test_no_lease(self, attacker: Attacker, command: int) -> None:
        """Who opens a file of which root has one waits, up to 45 seconds (lease-break-time)."""
        _, text = attacker.run(str(attacker.probe), "call", "72", "0", str(command), "0")
        assert text == f"E{errno.EPERM}\n"

    @pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
    @pytest.mark.parametrize("request_", [TIOCSTI, TIOCLINUX])
    def test_no_terminal_input_is_forged_also_with_high_bits(
        self, attacker: Attacker, request_: int, high: int
    ) -> None:
        """CVE-2019-10063"""
        _, text = attacker.run(str(attacker.probe), "call", "16", "0", str(request_ | high), "x")
        assert text == f"E{errno.EPERM}\n"

    @pytest.mark.parametrize("deed", ["int80", "x32"])
    def test_foreign_tables_end_the_process(self, attacker: Attacker, deed: str) -> None:
        job, text = attacker.run(str(attacker.probe), deed)
        assert (job.signal, text) == (signal.SIGSYS, "")

    def test_only_harmless_personalities(self, attacker: Attacker) -> None:
        read_implies_exec, no_random_addresses = 0x0400000, 0x0040000
        values = {0: "0", 0xFFFFFFFF: "0", no_random_addresses: "0", read_implies_exec: f"E{errno.EPERM}"}
        script = "; ".join(f"$P call 135 {value}" for value in values)
        assert attacker.shell(script)[1].split() == list(values.values())


class TestProfile:
    def test_the_filter_is_on(self, attacker: Attacker) -> None:
        _, text = attacker.shell("grep -E 'Seccomp:|NoNewPrivs:' /proc/self/status")
        assert text.split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]

    def test_only_admins_may_turn_it_off(self, attacker: Attacker) -> None:
        if attacker.uid:
            with pytest.raises(NotPermitted, match="--seccomp-profile off is for admins only"):
                attacker.start("true", seccomp=False)
            return
        _, text = attacker.shell("grep -E 'Seccomp:|NoNewPrivs:' /proc/self/status", seccomp=False)
        assert text.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]
