"""`out` against a real daemon and real jobs: what is selected, how it is shown, followed and found."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time

import pytest

from tests.host.daemon import ROOT, Daemon

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) ")


@pytest.fixture(scope="module")
def job(daemon: Daemon) -> str:
    """Six lines, two streams, 0.1 s apart; the fourth comes in two pieces."""
    script = "echo a1; s; echo b1 >&2; s; echo a2; s; printf b; s; echo 2; s; echo b3 >&2; s; printf end"
    return daemon.shell("s() { sleep 0.1; }; " + script)[0].id


def begin_ctl(daemon: Daemon, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workerctl", "--socket", str(daemon.socket), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


class TestTimestamps:
    def test_each_line_has_one_however_it_came(self, daemon: Daemon, job: str) -> None:
        lines = daemon.ctl("out", "-t", job).stdout.splitlines()
        assert [STAMP.sub(b"", line) for line in lines] == [b"a1", b"b1", b"a2", b"b2", b"b3", b"end"]
        stamps = [line.split()[0] for line in lines]
        assert stamps == sorted(stamps) and len(set(stamps)) == 6

    def test_in_utc(self, daemon: Daemon, job: str) -> None:
        local = daemon.ctl("out", "-t", job, env={"TZ": "Asia/Kolkata"}).stdout
        assert b"+05:30 a1" in local
        assert b"Z a1" in daemon.ctl("out", "-t", "--utc", job, env={"TZ": "Asia/Kolkata"}).stdout

    def test_of_one_stream(self, daemon: Daemon, job: str) -> None:
        lines = daemon.ctl("out", "-t", "--stderr", "--tail", "1", job).stdout.splitlines()
        assert [STAMP.sub(b"", line) for line in lines] == [b"b3"]


class TestTimes:
    def test_since_and_until_cut_where_a_line_began(self, daemon: Daemon, job: str) -> None:
        stamps = [line.split()[0].decode() for line in daemon.ctl("out", "-t", job).stdout.splitlines()]
        assert daemon.ctl("out", "--since", stamps[2], job).stdout == b"a2\nb2\nb3\nend"
        later = daemon.ctl("out", "--since", stamps[1], "--until", stamps[4], "--stdout", job).stdout
        assert later == b"a2\nb2\n"
        assert daemon.ctl("out", "--until", stamps[3], "--tail", "1", job).stdout == b"a2\n"
        assert daemon.ctl("out", "--until", stamps[0], job).stdout == b""

    def test_ago(self, daemon: Daemon, job: str) -> None:
        assert daemon.ctl("out", "--since", "1h", job).stdout == b"a1\nb1\na2\nb2\nb3\nend"
        assert daemon.ctl("out", "--until", "1h", job).stdout == b""

    def test_nonsense_is_told(self, daemon: Daemon, job: str) -> None:
        ran = daemon.ctl("out", "--since", "yesterdayish", job)
        assert ran.returncode == 125 and b"write 10m (ago), 14:30" in ran.stderr

    def test_followed_until_a_time_ends_then(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "while :; do echo x; sleep 0.05; done")
        until = time.time() + 3
        ran = daemon.ctl("out", "-f", "--until", f"@{until}", job_id)
        assert until - 0.01 <= time.time() < until + 20
        assert ran.returncode == 0 and ran.stdout.count(b"x\n") > 5
        daemon.ctl("stop", "--grace", "0", job_id)


class TestJson:
    def test_lines_have_time_stream_and_data(self, daemon: Daemon, job: str) -> None:
        rows = [json.loads(line) for line in daemon.ctl("out", "--json", job).stdout.splitlines()]
        assert [(row["stream"], row["data"]) for row in rows] == [
            ("stdout", "a1\n"), ("stderr", "b1\n"), ("stdout", "a2\n"),
            ("stdout", "b2\n"), ("stderr", "b3\n"), ("stdout", "end"),
        ]  # fmt: skip
        assert all(abs(row["time"] / 1e6 - time.time()) < 600 for row in rows)

    def test_bytes_that_are_no_text(self, daemon: Daemon) -> None:
        made, _ = daemon.shell("printf '\\377\\0\\n'")
        (row,) = [json.loads(line) for line in daemon.ctl("out", "--json", made.id).stdout.splitlines()]
        assert base64.b64decode(row["base64"]) == b"\xff\0\n" and "data" not in row


class TestFollowing:
    def test_ends_with_the_job_and_has_every_byte(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "for i in 1 2 3 4 5; do seq 1 20000; sleep 0.1; done")
        wanted = "".join(f"{i}\n" for i in range(1, 20001)).encode() * 5
        assert daemon.ctl("out", "-f", job_id).stdout == wanted
        assert daemon.ctl("logs", job_id).stdout == wanted

    def test_goes_on_through_a_kill_of_the_daemon(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "for i in $(seq 1 60); do seq 1 1000; sleep 0.05; done")
        follower = begin_ctl(own_daemon, "out", "-f", job_id)
        assert follower.stdout is not None
        head = follower.stdout.read(10_000)
        own_daemon.restart()
        rest, notices = follower.communicate(timeout=60)
        assert head + rest == "".join(f"{i}\n" for i in range(1, 1001)).encode() * 60
        assert follower.returncode == 0 and notices.count(b"trying again") <= 1

    def test_tail_and_one_stream_go_together(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "seq 1 100; seq 1 100 >&2; sleep 1; echo last; echo no >&2")
        with daemon.client() as client:
            while client.wait_output(job_id, 0, timeout=0).end < 2 * 292:
                client.wait_output(job_id, 2 * 292 - 1)
        assert daemon.ctl("out", "-f", "--stdout", "--tail", "2", job_id).stdout == b"99\n100\nlast\n"


class TestRead:
    def test_one_stream_across_many_records(self, daemon: Daemon) -> None:
        code = "import os\nfor i in range(100000): os.write(1 + i % 2, b'%06d\\n' % i)"
        made = daemon.wait(daemon.run("python3", "-c", code))
        for stream in (1, 2):
            wanted = b"".join(b"%06d\n" % i for i in range(stream - 1, 100000, 2))
            assert daemon.output_from(made.id, 0, stream) == wanted


class TestMatch:
    def test_returns_when_a_line_matches_though_it_came_in_pieces(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "echo one; sleep 0.2; printf rea; sleep 0.2; echo dy now; sleep 1000")
        ran = daemon.ctl("wait", job_id, "--match", "^ready now$", "--timeout", "60s")
        assert (ran.returncode, ran.stdout) == (0, b"ready now\n")
        assert daemon.ctl("wait", job_id, "--match", "ready", "--stderr", "--timeout", "300ms").returncode == 124
        daemon.ctl("stop", job_id)

    def test_a_prompt_needs_no_newline_but_a_lines_end_does(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "printf login:; sleep 1000")
        assert daemon.ctl("wait", job_id, "--match", "login:", "--timeout", "60s").stdout == b"login:\n"
        assert daemon.ctl("wait", job_id, "--match", "login:$", "--timeout", "300ms").returncode == 124
        daemon.ctl("stop", job_id)

    def test_an_end_without_a_match_is_1(self, daemon: Daemon, job: str) -> None:
        ran = daemon.ctl("wait", job, "--match", "never")
        assert ran.returncode == 1 and b"nothing in it matched" in ran.stderr
        assert daemon.ctl("wait", job, "--match", "^end$").stdout == b"end\n"
        assert daemon.ctl("wait", job, "--match", "(").returncode == 125


class TestReplay:
    def test_takes_its_time_and_keeps_the_streams_apart(self, daemon: Daemon, job: str) -> None:
        begin = time.monotonic()
        ran = daemon.ctl("replay", job)
        assert time.monotonic() - begin >= 0.6
        assert (ran.stdout, ran.stderr) == (b"a1\na2\nb2\nend", b"b1\nb3\n")

    def test_long_pauses_can_be_cut(self, daemon: Daemon) -> None:
        made, _ = daemon.shell("echo a; sleep 8; echo b")
        begin = time.monotonic()
        assert daemon.ctl("replay", "--max-wait", "10ms", made.id).stdout == b"a\nb\n"
        assert time.monotonic() - begin < 7.5
        assert daemon.ctl("replay", "--speed", "x", made.id).returncode == 125
