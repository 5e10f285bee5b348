"""Jobs with terminals, as a person meets them: real programs in tmux."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import Daemon
from tests.host.screen import Screen, needs, screen_of
from workerd.job import Reason, State

pytestmark = [needs("bash"), pytest.mark.timeout(300)]


@pytest.fixture
def screen(daemon: Daemon) -> Iterator[Screen]:
    with screen_of(daemon) as made:
        yield made


def shell_in(screen: Screen, *options: str) -> None:
    """`run -it` of a shell, up to its prompt."""
    screen.type(f"w run -it {' '.join(options)} -e PS1='job> ' bash --norc --noprofile -i\n")
    screen.wait(r"^job>$")


def attach(screen: Screen, name: str, before: str = "") -> None:
    """`attach` to a shell, up to its prompt."""
    screen.type(f"clear; {before} echo again; w attach {name}\n")
    screen.wait(r"^again\n(?s:.*)^job>$")


def client_pid(text: str) -> int:
    """The workerctl whose command line has `text` in it."""
    found = subprocess.run(["pgrep", "-f", f"workerctl .*{text}"], capture_output=True, check=True).stdout.split()
    return int(found[-1])


class TestShell:
    def test_has_a_terminal_of_the_right_size_and_its_own_exit_code(self, screen: Screen) -> None:
        shell_in(screen)
        screen.type("tty; stty size; echo $COLUMNS\n")
        screen.wait(r"^/dev/pts/0\n24 80\n80\n")
        screen.type("exit 5\n")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 5$")
        screen.sane()

    def test_job_control_works(self, screen: Screen) -> None:
        shell_in(screen)
        screen.type("sh -c 'echo ready; sleep 1000'\n")
        screen.wait(r"^ready$")
        screen.keys("C-z")
        screen.wait(r"Stopped +sh -c")
        screen.type("clear; fg\n")
        screen.wait(r"^sh -c 'echo ready; sleep 1000'$")
        screen.keys("C-c")
        screen.wait(r"^\^C\njob>$")
        screen.type("echo reading; cat\n")
        screen.wait(r"^reading$")  # before, the shell's line editor has the terminal: no end of file there
        screen.keys("C-d")
        screen.type("echo alive\n")
        screen.wait(r"^alive$")

    def test_ctrl_z_at_the_command_itself_does_not_leave_it_stopped_for_ever(self, screen: Screen) -> None:
        screen.type("w run -it sh -c 'echo ready; read line; echo got $line'\n")
        screen.wait(r"^ready$")
        screen.keys("C-z")
        screen.type("on\n")
        screen.wait(r"^got on$")

    def test_follows_the_size_of_the_window(self, screen: Screen) -> None:
        script = "trap 'echo now \\$(stty size)' WINCH; echo ready; while :; do sleep 0.1; done"
        screen.type(f'w run -it sh -c "{script}"\n')
        screen.wait(r"^ready$")
        screen.resize(61, 17)
        screen.wait(r"^now 17 61$")
        screen.keys("C-c")

    def test_utf8_is_erased_by_characters(self, screen: Screen) -> None:
        screen.type("w run -it sh -c 'echo ready; read line; echo \"got [$line]\"'\n")
        screen.wait(r"^ready$")
        screen.type("aé漢")
        screen.wait("aé漢")
        screen.keys("BSpace", "BSpace")
        screen.keys("Enter")
        screen.wait(r"^got \[a\]$")

    def test_the_terminal_is_the_users_own(self, daemon: Daemon) -> None:
        job = daemon.run("sh", "-c", "stat -c '%u %g %a' /dev/pts/0; tty; ls /dev/pts", tty=True)
        daemon.wait(job)
        assert daemon.output(job).decode().split("\r\n") == ["0 5 620", "/dev/pts/0", "0  ptmx", ""]


class TestPasting:
    def test_more_than_a_slow_job_takes_at_once_arrives_whole(self, screen: Screen, tmp_path: Path) -> None:
        text = "".join(random.Random(3).choices("abcdefghij", k=400_000))
        (tmp_path / "pasted").write_text(text)
        take = "stty raw -echo; echo ready; sleep 0.5; head -c 400000 | md5sum"
        screen.type(f"clear; w run -it sh -c '{take}'\n")
        screen.wait(r"^ready$")
        screen.tmux("load-buffer", str(tmp_path / "pasted"))
        screen.tmux("paste-buffer")
        screen.wait(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
        screen.wait(r"host>$")

    def test_to_a_job_that_never_reads_it_leaves_the_detach_keys_alive(self, screen: Screen, tmp_path: Path) -> None:
        (tmp_path / "pasted").write_text("x" * 400_000)
        screen.type("clear; w run -it sh -c 'stty raw -echo; echo ready; exec sleep 1000'\n")
        screen.wait(r"^ready$")
        screen.tmux("load-buffer", str(tmp_path / "pasted"))
        screen.tmux("paste-buffer")
        screen.keys("C-p", "C-q")
        screen.wait(r"detached from job")
        screen.sane()


class TestLeaving:
    def test_detached_the_job_runs_on_and_attach_comes_back(self, daemon: Daemon, screen: Screen) -> None:
        shell_in(screen, "--name", "back")
        screen.type("echo before\n")
        screen.wait(r"^before$")
        screen.keys("C-p", "C-q")
        screen.wait(r"^workerctl: detached from job")
        screen.type("echo code $?\n")
        screen.wait(r"^code 0$")
        screen.sane()
        attach(screen, "back")
        screen.wait(r"^again\n(?s:.*)^before\njob>$")
        screen.type("exit 9\n")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 9$")

    def test_ctrl_p_alone_still_goes_one_line_up(self, screen: Screen) -> None:
        shell_in(screen)
        screen.type("echo once\n")
        screen.wait(r"^once\njob>$")
        screen.keys("C-p")
        screen.wait(r"^job> echo once$")
        screen.keys("Enter")
        screen.wait(r"^once\njob> echo once\nonce$")

    def test_other_keys_by_option_and_by_environment(self, screen: Screen) -> None:
        shell_in(screen, "--name", "keys", "--detach-keys", "ctrl-a,d")
        screen.keys("C-a", "d")
        screen.wait(r"detached from job")
        attach(screen, "keys", "export WORKERCTL_DETACH_KEYS=ctrl-x;")
        screen.keys("C-x")
        screen.wait(r"detached from job")
        screen.type("clear; w attach --detach-keys ctrl- keys\n")
        screen.wait(r"write keys as ctrl-p,ctrl-q")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
    def test_a_signal_to_the_client_restores_the_terminal(self, screen: Screen, number: signal.Signals) -> None:
        shell_in(screen, "--name", f"sig{int(number)}")
        os.kill(client_pid(f"--name sig{int(number)}"), number)
        screen.wait(r"^.*host>$")
        screen.sane()

    def test_the_end_of_the_job_restores_the_terminal(self, daemon: Daemon, screen: Screen) -> None:
        shell_in(screen, "--name", "doomed")
        assert daemon.ctl("kill", "doomed").returncode == 0
        screen.wait(r"^.*host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 137$")
        screen.sane()

    def test_stopped_and_continued_the_client_is_raw_again(self, screen: Screen) -> None:
        shell_in(screen, "--name", "stopped")
        os.kill(client_pid("--name stopped"), signal.SIGTSTP)
        screen.wait(r"Stopped")
        screen.sane()
        screen.type("clear; fg\n")
        screen.type("tty\n")
        screen.wait(r"^/dev/pts/0$")
        screen.type("exit\n")
        screen.wait(r"^host>$")

    def test_what_a_full_screen_program_switched_on_is_off_after_detaching(self, screen: Screen) -> None:
        screen.type(
            "w run -it sh -c \"printf '\\\\033[?1049h\\\\033[?25l\\\\033[?1000h\\\\033[?1hFULL'; sleep 1000\"\n"
        )
        screen.wait(r"^FULL")
        assert screen.modes() == "alternate_on=1 cursor_flag=0 mouse_any_flag=1 keypad_cursor_flag=1"
        screen.keys("C-p", "C-q")
        screen.wait(r"detached from job")
        screen.sane()


class TestSeveralAtOnce:
    def test_all_see_all_and_each_may_type(self, daemon: Daemon, screen: Screen) -> None:
        shell_in(screen, "--name", "pair")
        with screen_of(daemon) as other:
            attach(other, "pair")
            other.type("echo from-other\n")
            screen.wait(r"^from-other$")
            screen.type("echo from-first\n")
            other.wait(r"^from-first$")

    def test_the_size_is_that_of_who_began_to_type_last(self, daemon: Daemon, screen: Screen) -> None:
        shell_in(screen, "--name", "sizes")
        with screen_of(daemon, 50, 15) as other:
            attach(other, "sizes")
            other.type("stty size\n")
            other.wait(r"^15 50$")
            screen.type(" ")
            screen.type("stty size\n")
            screen.wait(r"^24 80$")


class TestTheDaemonDies:
    def test_killed_and_started_again_the_session_goes_on(self, own_daemon: Daemon) -> None:
        with screen_of(own_daemon) as screen:
            shell_in(screen)
            own_daemon.restart()
            screen.type("echo still-$((40+2))\n")
            screen.wait(r"^still-42$")
            screen.resize(66, 20)
            screen.type("\nstty size\n")
            screen.wait(r"^20 66$")
            screen.type("exit 3\n")
            screen.wait(r"^host>$")
            screen.type("echo code $?\n")
            screen.wait(r"^code 3$")

    def test_killed_for_good_the_terminal_is_restored_with_an_error(self, own_daemon: Daemon) -> None:
        with screen_of(own_daemon) as screen:
            shell_in(screen)
            own_daemon.kill()
            screen.type("echo typed-without-a-daemon\n")
            screen.wait(r"^typed-without-a-daemon$")  # the log and the terminal need no daemon
            screen.wait(r"^workerctl: workerd is not running")
            screen.type("echo code $?\n")
            screen.wait(r"^code 125$")
            screen.sane()


class TestPrograms:
    @needs("vim")
    def test_vim_edits_and_redraws_for_whoever_attaches(self, daemon: Daemon, screen: Screen) -> None:
        work = daemon.base / "vim"
        work.mkdir(exist_ok=True)
        screen.type(f"w run -it --name vim -w {work} vim -u NONE -N -c 'set ruler' file.txt\n")
        screen.wait(r"^~")
        screen.type("ihello from vim")
        screen.wait(r"INSERT")
        screen.keys("Escape")
        screen.keys("C-p", "C-q")
        screen.wait(r"detached from job")
        screen.sane()
        screen.type("clear; w attach vim\n")
        screen.wait(r"^hello from vim(?s:.*)^~")
        screen.resize(60, 18)
        screen.type(":wq\n")
        screen.wait(r"^host>$")
        assert (work / "file.txt").read_text() == "hello from vim\n"
        screen.sane()

    @needs("less")
    def test_less_pages(self, screen: Screen) -> None:
        screen.type("w run -it sh -c 'seq 1000 | less'\n")
        screen.wait(r"^23\n:")
        screen.type(" ")
        screen.wait(r"^46\n:")
        screen.type("G")
        screen.wait(r"^1000\n")
        screen.type("q")
        screen.wait(r"^host>$")
        screen.sane()

    @needs("top")
    def test_top_draws_and_quits(self, screen: Screen) -> None:
        screen.type("w run -it top -d 1\n")
        shown = screen.wait(r"PID USER")
        assert re.search(r"^top - ", shown, re.MULTILINE)
        screen.wait(r"top$")
        screen.type("q")
        screen.wait(r"^host>$")
        screen.sane()


class TestExec:
    def test_a_shell_in_a_job_has_a_terminal_of_its_own(self, daemon: Daemon, screen: Screen) -> None:
        job = daemon.run("sleep", "1000", tty=True)
        screen.type(f"w exec -it -e PS1='in> ' {job} bash --norc --noprofile -i\n")
        screen.wait(r"^in>$")
        screen.type("tty; stty size; ps -o comm= -p 2\n")
        screen.wait(r"^/dev/pts/1\n24 80\nsleep$")
        screen.type("sh -c 'echo ready; sleep 1000'\n")
        screen.wait(r"^ready$")
        screen.keys("C-c")
        screen.wait(r"^\^C\n+in>$")
        screen.resize(70, 20)
        screen.type("stty size\n")
        screen.wait(r"^20 70$")
        screen.type("exit 8\n")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 8$")
        screen.sane()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_to_the_client_restores_the_terminal(
        self, daemon: Daemon, screen: Screen, number: signal.Signals
    ) -> None:
        job = daemon.run("sleep", "1000")
        screen.type(f"w exec -it -e PS1='in> ' {job} bash --norc --noprofile -i\n")
        screen.wait(r"^in>$")
        os.kill(client_pid(f"exec -it .*{job}"), number)
        screen.wait(r"host>$")
        screen.sane()


class TestPlain:
    def test_hostile_output_is_harmless_without_t(self, screen: Screen) -> None:
        screen.type("w run -f sh -c \"printf 'a\\\\033[2Jb\\\\033[?1049hc\\\\n'; printf '\\\\033[8mx\\\\n' >&2\"\n")
        screen.wait(r"^a\\x1b\[2Jb\\x1b\[\?1049hc$")
        screen.wait(r"^\\x1b\[8mx$")
        assert "alternate_on=0" in screen.modes()

    def test_typed_lines_reach_a_job_without_a_terminal(self, screen: Screen) -> None:
        screen.type("w run -i -f sh -c 'test -t 0 || echo no terminal; sed s/^/got:/'\n")
        screen.wait(r"^no terminal$")
        screen.type("one\n")
        screen.wait(r"^got:one$|^one$")
        screen.keys("C-d")
        screen.wait(r"^got:one(?s:.*)^host>$")

    def test_ctrl_c_interrupts_the_job_and_twice_stops_it(self, daemon: Daemon, screen: Screen) -> None:
        script = (
            "trap 'echo interrupted' INT; trap 'echo terminated; exit 4' TERM; echo up; while :; do sleep 0.1; done"
        )
        screen.type(f'w run -f --name ints sh -c "{script}"\n')
        screen.wait(r"^up$")
        screen.keys("C-c")
        screen.wait(r"^interrupted$")
        screen.keys("C-c")
        screen.wait(r"^terminated$")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 4$")
        with daemon.client() as client:
            job = client.status("ints")
        assert (job.state, job.reason) == (State.FINISHED, Reason.STOPPED)

    def test_detach_keys_leave_a_followed_job_which_runs_on(self, daemon: Daemon, screen: Screen) -> None:
        screen.type('w run -f --name left --detach-keys ctrl-a,d sh -c \'trap "echo interrupted" INT; echo up; ')
        screen.type("while :; do sleep 0.1; done'\n")
        screen.wait(r"^up$")
        screen.type("dropped")
        screen.keys("C-c")
        screen.wait(r"^interrupted$")
        screen.keys("C-a", "d")
        screen.wait(r"^workerctl: detached from job")
        screen.type("echo code $?\n")
        screen.wait(r"^code 0$")
        screen.sane()
        with daemon.client() as client:
            assert client.status("left").state is State.RUNNING
            client.stop("left", grace=0)

    def test_the_terminal_is_restored_where_a_followed_job_just_ends(self, screen: Screen) -> None:
        screen.type("w run -f --detach-keys ctrl-x sh -c 'echo up; exit 3'; echo code $?\n")
        screen.wait(r"^up\ncode 3$")
        screen.sane()
        screen.type("w run -f --detach-keys ctrl-x --name ended sh -c 'echo up; exec sleep 1000'\n")
        screen.wait(r"^up$")
        os.kill(client_pid("--name ended"), signal.SIGTERM)
        screen.wait(r"host>$")
        screen.sane()

    def test_what_a_terminal_wrote_is_shown_without_its_carriage_returns(self, screen: Screen) -> None:
        screen.type("clear; w run -it --name crlf echo line > /dev/null; w out crlf\n")
        screen.wait(r"^line$")

    def test_it_without_a_terminal_says_what_to_write(self, daemon: Daemon) -> None:
        done = daemon.ctl("run", "-it", "true")
        assert done.returncode == 125
        assert b"leave out -t" in done.stderr
        done = daemon.ctl("attach", "whatever")
        assert done.returncode == 125
        assert b"workerctl out -f whatever" in done.stderr

    def test_a_job_without_a_terminal_cannot_be_attached_to(self, daemon: Daemon, screen: Screen) -> None:
        job = daemon.run("sleep", "100")
        screen.type(f"w attach {job}\n")
        screen.wait(r"it was started without -t")
        screen.sane()

    def test_rm_forgets_the_job(self, daemon: Daemon, screen: Screen) -> None:
        screen.type("w run -it --rm --name gone sh -c 'echo bye; exit 6'\n")
        screen.wait(r"^bye$")
        screen.wait(r"^host>$")
        screen.type("echo code $?; while w status gone > /dev/null; do sleep 0.2; done\n")
        screen.wait(r"^code 6$")
        screen.wait(r"^workerctl: .*gone")


class TestTop:
    @pytest.mark.parametrize("before", ["", "NO_COLOR=1 "])
    def test_states_and_the_ends_of_lines_are_there_on_forty_columns(self, daemon: Daemon, before: str) -> None:
        job = daemon.run("sh", "-c", "sleep 1000; echo never comes here")
        assert daemon.ctl("pause", job).returncode == 0
        with screen_of(daemon, 40, 12) as screen:
            screen.type(f"{before}w top -i 200ms --filter id={job}\n")
            shown = screen.wait(rf"^{job} +paused .*…$").splitlines()
            assert re.search(r"\d+ paused|\d+ jobs", shown[0]) and shown[1].startswith("jobs: ")
            assert all(len(line) <= 40 for line in shown) and "STATE" in shown[4]
            assert shown[11] == "h help   q quit   / filter   o output"
            screen.type("q")
            screen.wait(r"host>$")
            screen.sane()
        daemon.ctl("stop", "-t0", job)
