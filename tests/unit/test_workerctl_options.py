"""The command line: words to options, options to a job's spec, and what is said of a bad one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from workerctl import helptext, signals
from workerctl.options import Args, Option, UsageError, Verb, did_you_mean, parse
from workerctl.spec import ENV_PASSED, run_params
from workerctl.verbs import ALIASES, VERBS, load
from workerctl.verbs.run import VERB as RUN
from workerd import protocol

VERB = Verb(
    "try",
    "[OPTIONS]",
    "A verb to try.",
    groups={
        "Options": [
            Option("-m --mem --memory", "size", "SIZE"),
            Option("-f --follow", "switch"),
            Option("-q --quiet", "switch"),
            Option("-e --env", "many", "NAME", many=True),
        ]
    },
    examples=[],
)
FIRST = Verb("first", "", "Options first.", groups=VERB.groups, examples=[], options_first=True)


def spec(*words: str) -> dict[str, Any]:
    found = run_params(parse(RUN, [*words, "true"]))["spec"]
    assert isinstance(found, dict)
    return found


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        run_params(parse(RUN, [*words, "true"]))
    return str(caught.value)


class TestParse:
    @pytest.mark.parametrize(
        "words",
        [["-m", "1K"], ["-m1K"], ["-m=1K"], ["--mem", "1K"], ["--mem=1K"], ["--memory", "1K"], ["-fqm", "1K"]],
    )
    def test_every_way_to_give_a_value(self, words: list[str]) -> None:
        assert parse(VERB, words).text("mem") == "1K"

    def test_switches_may_be_joined(self) -> None:
        args = parse(VERB, ["-fq"])
        assert args.has("follow") and args.has("quiet")

    def test_the_last_value_counts_where_one_is_wanted(self) -> None:
        assert parse(VERB, ["-m", "1", "--memory", "2"]).text("mem") == "2"

    def test_all_values_count_where_many_are_wanted_in_order(self) -> None:
        args = parse(VERB, ["-e", "a", "-m", "1", "--env=b"])
        assert args.texts("env") == ["a", "b"]
        assert args.order == [("env", "a"), ("mem", "1"), ("env", "b")]

    def test_options_may_follow_words(self) -> None:
        args = parse(VERB, ["one", "-f", "two", "--", "-q"])
        assert args.words == ["one", "two", "-q"] and args.has("follow") and not args.has("quiet")

    def test_options_end_at_the_first_word_of_a_command(self) -> None:
        args = parse(FIRST, ["-f", "ls", "-q", "--", "-m"])
        assert args.words == ["ls", "-q", "--", "-m"] and not args.has("quiet")

    def test_a_lone_dash_is_a_word(self) -> None:
        assert parse(VERB, ["-"]).words == ["-"]

    def test_an_empty_value_is_a_value(self) -> None:
        assert parse(VERB, ["--mem="]).text("mem") == ""

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--mme", "1"], "try has no option '--mme'; did you mean --mem?"),
            (["--folow"], "did you mean --follow?"),
            (["--zzz"], "see: workerctl help try"),
            (["-z"], "no option '-z'"),
            (["-fz"], "no option '-z'"),
            (["-m"], "-m needs a value: -m SIZE"),
            (["--follow=yes"], "--follow takes no value"),
        ],
    )
    def test_what_is_wrong_is_named(self, words: list[str], sentence: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse(VERB, words)
        assert sentence in str(caught.value)

    def test_nothing_is_meant_where_nothing_is_near(self) -> None:
        assert did_you_mean("xyzzy", ["run", "status"]) == ""


class TestLimits:
    @pytest.mark.parametrize(
        ("words", "limits"),
        [
            (["--mem", "256M"], {"memory": 256 << 20}),
            (["--memory=1.5G", "--swap", "0"], {"memory": 3 << 29, "swap": 0}),
            (
                ["--cpus", "0.5", "--cpu-weight", "50", "--cpuset", "0-3,6"],
                dict(cpus=0.5, cpu_weight=50, cpuset="0-3,6"),
            ),
            (["--pids", "64", "--io-weight", "10000"], {"pids": 64, "io_weight": 10_000}),
            (["--io-write-bps", "1M"], {"io": [{"write_bps": 1 << 20}]}),
            (["--io-read-bps", "1M/s", "--io-read-iops", "5"], {"io": [{"read_bps": 1 << 20, "read_iops": 5}]}),
            (
                ["--io-write-iops", "8:0:100", "--io-write-bps", "1K", "--io-read-bps=8:0:2K"],
                {"io": [{"device": "8:0", "write_iops": 100, "read_bps": 2048}, {"write_bps": 1024}]},
            ),
            (["--io-read-bps", "/:1M"], {"io": [{"device": "/", "read_bps": 1 << 20}]}),
        ],
    )
    def test_what_is_asked_for_is_what_is_sent(self, words: list[str], limits: dict[str, Any]) -> None:
        assert spec(*words)["limits"] == limits

    def test_without_limits_none_are_sent(self) -> None:
        assert "limits" not in spec()

    def test_a_relative_device_path_is_made_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert spec("--io-read-bps", "a:1M")["limits"]["io"][0]["device"] == str(tmp_path.resolve() / "a")

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["--mem", "0"], ["--mem 0", "leave it out"]),
            (["--mem", "12X"], ["--mem", "'12X'", "256M"]),
            (["--mem", "-1"], ["--mem -1", "not negative", "256M"]),
            (["--mem", ""], ["--mem", "accepted are"]),
            (["--swap", "x"], ["--swap", "accepted are"]),
            (["--cpus", "-1"], ["--cpus -1", "0.5"]),
            (["--cpus", "0"], ["--cpus 0", "leave --cpus out"]),
            (["--cpus", "nan"], ["--cpus nan"]),
            (["--cpus", "1e3"], ["--cpus 1e3"]),
            (["--cpus", "."], ["--cpus ."]),
            (["--cpu-weight", "10001"], ["--cpu-weight 10001", "10000"]),
            (["--pids", "4194304"], ["--pids 4194304", "4194303"]),
            (["--pids", "0"], ["--pids 0", "leave it out"]),
            (["--pids", "\u0663"], ["--pids"]),
            (["--cpuset", "3-1"], ["3-1 runs backwards"]),
            (["--cpuset", "a"], ["--cpuset a", "0-3,6"]),
            (["--io-read-bps", ":1M"], ["--io-read-bps :1M", "PATH:RATE"]),
            (["--io-read-bps", "8:1M"], ["MAJ:MIN"]),
            (["--io-read-iops", "1K"], ["--io-read-iops 1K", "whole number"]),
        ],
    )
    def test_a_bad_one_is_refused_by_name(self, words: list[str], parts: list[str]) -> None:
        sentence = refused(*words)
        for part in parts:
            assert part in sentence


class TestSpec:
    def test_all_that_run_sends_is_what_the_daemon_takes(self, tmp_path: Path) -> None:
        words = ["--name", "n", "--hostname", "h.x", "--net", "bridge", "--rw", "/srv", "--ro", "/opt"]
        words += ["--bind", "/a:/b:ro", "--bind", "/c:/d", "--tmpfs", "/x:1M", "--rootfs", str(tmp_path), "--read-only"]
        words += ["--max-output", "1M", "--stop-signal", "INT", "--grace", "1.5s", "-m", "1G", "--io-write-bps", "1M"]
        params = msgspec.convert(run_params(parse(RUN, [*words, "echo", "-n"])), protocol.RunParams)
        assert params.spec.argv == ("echo", "-n")
        assert (params.spec.stop_signal, params.spec.grace, params.spec.cwd) == (2, 1_500_000, "/")
        kinds = [(mount.kind.value, mount.source, mount.target, mount.size) for mount in params.spec.mounts]
        assert kinds == [
            ("rw", None, "/srv", None),
            ("ro", None, "/opt", None),
            ("bind-ro", "/a", "/b", None),
            ("bind", "/c", "/d", None),
            ("tmpfs", None, "/x", 1 << 20),
        ]

    def test_mounts_keep_the_order_in_which_they_were_given(self) -> None:
        found = spec("--tmpfs", "/x", "--rw", "/y", "--tmpfs", "/z")["mounts"]
        assert [mount["target"] for mount in found] == ["/x", "/y", "/z"]

    def test_it_runs_in_the_current_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "sub").mkdir()
        assert spec()["cwd"] == str(tmp_path.resolve())
        assert spec("-w", "sub")["cwd"] == str(tmp_path.resolve() / "sub")

    def test_links_on_the_way_to_a_mount_are_resolved(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert spec("--rw", str(tmp_path / "link"))["mounts"][0]["target"] == str(tmp_path.resolve() / "real")

    def test_a_current_directory_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert "--workdir DIR" in refused()

    def test_the_umask_is_the_callers(self) -> None:
        before = os.umask(0o027)
        try:
            assert spec()["umask"] == 0o027
            assert os.umask(0o027) == 0o027
        finally:
            os.umask(before)

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            (["--name", "-x"], "--name -x"),
            (["--name", "a b"], "letters, digits"),
            (["--name", ""], "--name"),
            (["--name", "é"], "--name é"),
            (["--name", "a" * 65], "at most 64"),
            (["--hostname", "a-"], "--hostname a-"),
            (["-p", "80"], "--publish 80: write HOST:JOB"),
            (["-p", "80:0"], "ports from 1 to 65535"),
            (["-p", "80:65536"], "ports from 1 to 65535"),
            (["-p", "80:80/sctp"], "write HOST:JOB or HOST:JOB/udp"),
            (["-p", "80:80/"], "write HOST:JOB or HOST:JOB/udp"),
            (["--net", "none", "-p", "80:80"], "--publish needs --net bridge, not --net none"),
            (["--net", "foo"], "none, bridge or host"),
            (["--bind", "a"], "SOURCE:TARGET"),
            (["--bind", "a:b:c"], "SOURCE:TARGET"),
            (["--rootfs", "/x", "--rw", "y"], "begins with /"),
            (["--rw", ""], "empty"),
            (["--stop-signal", "FOO"], "TERM, SIGTERM or 15"),
            (["--grace", "2d"], "24h"),
            (["--grace", "soon"], "accepted are"),
            (["--env", "=x"], "NAME=VALUE"),
            (["--env", "SURELY_NOT_SET"], "SURELY_NOT_SET=VALUE"),
            (["--name", "a\udce9"], "--name"),
            (["--workdir", "/a\udce9"], "not UTF-8"),
            (["-e", "A=\udce9"], "not UTF-8"),
        ],
    )
    def test_a_bad_option_is_refused_by_name(self, words: list[str], part: str) -> None:
        assert part in refused(*words)

    @pytest.mark.parametrize(
        ("words", "part"),
        [([], "run what?"), (["--"], "run what?"), ([""], "empty"), (["a", "\udce9"], "argument 1 is not UTF-8")],
    )
    def test_a_command_that_cannot_be(self, words: list[str], part: str) -> None:
        with pytest.raises(UsageError) as caught:
            run_params(parse(RUN, words))
        assert part in str(caught.value)


    def test_publish_brings_the_bridge(self) -> None:
        found = spec("-p", "8080:80", "-p", "5300:53/udp", "-p", "81:81/tcp")
        assert found["net"] == "bridge"
        udp = {"host": 5300, "job": 53, "protocol": "udp"}
        assert found["publish"] == [{"host": 8080, "job": 80}, udp, {"host": 81, "job": 81}]


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name in (*ENV_PASSED, "LC_ALL", "SECRET", "FOO"):
            monkeypatch.setenv(name, name.lower())

    def env(self, *words: str) -> dict[str, str]:
        found = run_params(parse(RUN, [*words, "true"]))["env"]
        assert isinstance(found, dict)
        return found

    def test_a_few_variables_are_passed(self) -> None:
        assert sorted(self.env()) == sorted((*ENV_PASSED, "LC_ALL"))

    def test_those_that_are_named(self) -> None:
        env = self.env("-e", "FOO", "-e", "BAR=a=b", "--env", "PATH=")
        assert (env["FOO"], env["BAR"], env["PATH"]) == ("foo", "a=b", "") and "SECRET" not in env

    def test_all(self) -> None:
        assert self.env("--env-all")["SECRET"] == "secret"

    def test_one_that_is_no_utf8_is_left_out_where_nobody_asked_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BAD", "\udce9")
        assert "BAD" not in self.env("-E")


class TestSignals:
    @pytest.mark.parametrize("text", ["TERM", "SIGTERM", "sigterm", "term", "15"])
    def test_every_way_to_write_one(self, text: str) -> None:
        assert signals.number(text, "-s") == 15

    @pytest.mark.parametrize("text", ["FOO", "0", "65", "", "_DFL", "SIG_DFL", "-1", "RT"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(UsageError, match="no such signal"):
            signals.number(text, "-s")

    def test_names(self) -> None:
        assert (signals.name(9), signals.name(63)) == ("SIGKILL", "signal 63")


class TestHelp:
    @pytest.mark.parametrize("name", sorted(VERBS))
    def test_every_verb_explains_itself_in_80_columns_with_an_example(self, name: str) -> None:
        verb = load(name).VERB
        text = helptext.of_verb(verb)
        assert verb.name == name and verb.examples
        assert max(map(len, text.splitlines())) < 80
        assert f"workerctl {name}" in text
        for group in verb.groups.values():
            for option in group:
                assert all(flag in text for flag in option.flags)

    @pytest.mark.parametrize("name", sorted(VERBS))
    def test_every_example_is_read_without_complaint(self, name: str) -> None:
        verb = load(name).VERB
        for command, _ in verb.examples:
            command = re.sub(r"\$\(.*?\)", "ID", command)
            words = command.split(" && ")[0].split(" | ")[0].split(" > ")[0].split()
            assert isinstance(parse(load(words[0]).VERB, words[1:]), Args)

    @pytest.mark.parametrize("name", sorted(VERBS))
    def test_no_flag_means_two_things(self, name: str) -> None:
        flags = [flag for group in load(name).VERB.groups.values() for option in group for flag in option.flags]
        assert len(flags) == len(set(flags)) and not {"-h", "--help", "--socket"} & set(flags)

    def test_the_overview_names_every_verb_and_alias_in_80_columns(self) -> None:
        text = helptext.overview()
        assert max(map(len, text.splitlines())) < 80
        assert all(name in text for name in (*VERBS, *ALIASES))
