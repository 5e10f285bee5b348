"""The virtual machine keeps its word: what the other system tests build on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vmlib import cache, frames, sources
from vmlib.errors import BuildFailed, CommandFailed, MachineGone
from vmlib.machine import Machine

EVERY_BYTE = bytes(range(256))


class TestCommands:
    @pytest.mark.parametrize("code", [0, 1, 2, 126, 255])
    def test_exit_code_is_exact(self, vm: Machine, code: int) -> None:
        assert vm.run(["sh", "-c", f"exit {code}"]).returncode == code

    def test_signal_is_told_from_exit(self, vm: Machine) -> None:
        assert vm.run(["sh", "-c", "kill -TERM $$"]).returncode == -15

    def test_unknown_command_is_127(self, vm: Machine) -> None:
        result = vm.run(["no-such-command"])
        assert result.returncode == 127
        assert "no-such-command" in result.err

    def test_every_byte_goes_in_and_comes_out_and_stderr_apart(self, vm: Machine) -> None:
        result = vm.run(["sh", "-c", "tee /dev/stderr"], input=EVERY_BYTE)
        assert result.stdout == EVERY_BYTE
        assert result.stderr == EVERY_BYTE
        assert vm.sh("echo out; echo err >&2").stdout == b"out\n"

    def test_much_more_than_any_buffer_goes_through(self, vm: Machine) -> None:
        data = EVERY_BYTE * 4096 * 4
        assert vm.run(["cat"], input=data).stdout == data

    def test_input_that_nobody_reads_is_no_obstacle(self, vm: Machine) -> None:
        assert vm.run(["true"], input=bytes(8 << 20)).returncode == 0

    def test_several_commands_run_at_once(self, vm: Machine) -> None:
        first = vm.popen(["sh", "-c", "echo ready; read line; echo got $line"])
        first.wait_for_output(b"ready")
        assert vm.run(["echo", "meanwhile"]).out == "meanwhile"
        first.write(b"this\n")
        assert first.wait().out == "ready\ngot this"

    def test_timeout_kills_and_raises(self, vm: Machine) -> None:
        with pytest.raises(CommandFailed, match="timed out"):
            vm.run(["sh", "-c", "sleep 1000 & wait"], timeout=0.5)

    def test_background_process_does_not_hold_its_command(self, vm: Machine) -> None:
        started = time.monotonic()
        assert vm.sh("sleep 300 & echo started").out == "started"
        assert time.monotonic() - started < 60
        vm.sh("pkill -x sleep")

    def test_signal_reaches_the_command(self, vm: Machine) -> None:
        command = vm.popen(["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done"])
        command.wait_for_output(b"ready")
        command.signal(10)
        assert command.wait().returncode == 7

    def test_user_is_that_user(self, vm: Machine) -> None:
        result = vm.sh("id -un; id -gn; echo $HOME; pwd; cat /proc/self/oom_score_adj", user="alice")
        assert result.out.split() == ["alice", "alice", "/home/alice", "/home/alice", "0"]

    def test_checked_command_raises_with_its_output(self, vm: Machine) -> None:
        with pytest.raises(CommandFailed, match="why not"):
            vm.sh("echo why not >&2; exit 3")


class TestSystem:
    def test_first_process_is_systemd(self, vm: Machine) -> None:
        assert vm.sh("cat /proc/1/comm").out == "systemd"

    def test_no_unit_has_failed(self, vm: Machine) -> None:
        assert vm.run(["systemctl", "--failed", "--plain", "--no-legend"]).out == ""

    def test_cgroup_hierarchy_is_unified_with_its_controllers(self, vm: Machine) -> None:
        assert vm.sh("stat --file-system --format=%T /sys/fs/cgroup").out == "cgroup2fs"
        controllers = vm.sh("cat /sys/fs/cgroup/cgroup.controllers").out.split()
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers)

    def test_there_is_no_network_but_loopback(self, vm: Machine) -> None:
        assert vm.sh("ls /sys/class/net").out.split() == ["lo"]

    def test_second_disk_can_be_mounted(self, vm: Machine) -> None:
        vm.sh("mount /data && findmnt --noheadings --output SOURCE,FSTYPE /data && umount /data")

    def test_clock_agrees_with_the_host(self, vm: Machine) -> None:
        assert float(vm.sh("date +%s.%N").out) == pytest.approx(time.time(), abs=30)


class TestFiles:
    def test_tree_goes_in_and_comes_out_as_it_was(self, vm: Machine, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "bytes").write_bytes(EVERY_BYTE)
        (tree / "script").write_text("#!/bin/sh\necho it runs\n")
        (tree / "script").chmod(0o755)
        vm.push(tree, "/root/deep/below/pushed")
        assert vm.run(["/root/deep/below/pushed/script"]).out == "it runs"
        assert vm.run(["stat", "--format=%U", "/root/deep/below/pushed/bytes"]).out == "root"
        vm.pull("/root/deep/below/pushed", tmp_path / "back")
        assert (tmp_path / "back" / "pushed" / "bytes").read_bytes() == EVERY_BYTE


class TestPower:
    def test_reboot_keeps_files_and_changes_the_boot_id(self, vm: Machine) -> None:
        boot_id = vm.channel.boot_id
        vm.sh("echo kept >/root/before-reboot")
        vm.reboot()
        assert vm.channel.boot_id != boot_id
        assert vm.sh("cat /root/before-reboot").out == "kept"

    def test_power_cut_keeps_what_was_synced(self, vm: Machine) -> None:
        vm.sh("echo kept >/root/before-cut; sync /root/before-cut; sync /root")
        waiting = vm.popen(["sleep", "1000"])
        vm.power_cut()
        with pytest.raises(MachineGone):
            waiting.wait()
        with pytest.raises(MachineGone):
            vm.run(["true"])
        vm.start()
        assert vm.sh("cat /root/before-cut").out == "kept"


class TestCache:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_VM_CACHE", str(tmp_path))

    def test_entry_is_made_once(self) -> None:
        made: list[Path] = []
        for _ in range(2):
            with cache.entry("kind", "name", made.append) as path:
                assert path.is_dir()
        assert len(made) == 1

    def test_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        def build(where: Path) -> None:
            (where / "half").write_text("made")
            raise BuildFailed("on purpose")

        with pytest.raises(BuildFailed), cache.entry("kind", "name", build):
            pass
        assert [p.name for p in (tmp_path / "kind").iterdir()] == ["name.lock"]

    def test_entry_in_use_is_not_pruned(self) -> None:
        with cache.entry("kind", "used", lambda _: None) as used:
            cache.prune(used.parent, keep=0)
            assert used.is_dir()
        cache.prune(used.parent, keep=0)
        assert not used.exists()

    def test_only_the_last_used_stay(self, tmp_path: Path) -> None:
        for number in range(cache.KEEP + 2):
            with cache.entry("kind", f"entry{number}", lambda _: None) as path:
                os.utime(path, (number, number))
        with cache.entry("kind", "last", lambda _: None):
            kept = {p.name for p in (tmp_path / "kind").glob("*/")}
        assert kept == {"entry3", "entry4", "last"}


class TestSources:
    ONE_LINE = """
# deb http://commented.invalid bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://one.invalid/debian bookworm main contrib
deb-src http://one.invalid/debian bookworm main
deb http://one.invalid/security bookworm-security main
deb http://other.invalid/node nodistro main
"""
    DEB822 = """
Types: deb deb-src
# a comment
URIs: http://two.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.invalid/debian
Suites: bookworm
"""

    def write(self, monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
        path.write_text(text)
        monkeypatch.setenv("WORKER_VM_SOURCES", str(path))
        monkeypatch.setattr(sources, "machine_codename", lambda: "bookworm")

    def test_one_line_style(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(monkeypatch, tmp_path / "s.list", self.ONE_LINE)
        text = sources.for_release("trixie")
        assert "Suites: trixie\n" in text
        assert "Suites: trixie-security\n" in text
        assert "Signed-By: /k.gpg\n" in text
        assert "Components: main contrib\n" in text
        assert "other.invalid" not in text
        assert "commented" not in text

    def test_deb822_style_keeps_an_embedded_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(monkeypatch, tmp_path / "s.sources", self.DEB822)
        text = sources.for_release("bookworm")
        assert "Suites: bookworm bookworm-updates\n" in text
        assert "\n .\n -----END PGP PUBLIC KEY BLOCK-----\n" in text
        assert "Types: deb\n" in text
        assert "off.invalid" not in text

    def test_no_source_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(monkeypatch, tmp_path / "s.list", "deb http://other.invalid nodistro main")
        with pytest.raises(BuildFailed, match="WORKER_VM_SOURCES"):
            sources.for_release("bookworm")


class TestFrames:
    def test_stream_is_cut_right_whatever_the_pieces(self) -> None:
        sent = [(frames.STDOUT, 1, b"one"), (frames.STDERR, 2, b""), (frames.EXIT, 1, EVERY_BYTE)]
        stream = b"".join(frames.encode(*frame) for frame in sent)
        decoder = frames.Decoder()
        assert [f for i in range(len(stream)) for f in decoder.feed(stream[i : i + 1])] == sent

    def test_what_is_no_frame_is_refused(self) -> None:
        with pytest.raises(frames.BadFrame):
            list(frames.Decoder().feed(b"Kernel panic - not syncing"))


class TestTool:
    def test_help_teaches_with_examples(self) -> None:
        tool = Path(__file__).with_name("vm")
        done = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True, check=True)
        assert "examples:" in done.stdout
        assert "Ctrl-]" in done.stdout
