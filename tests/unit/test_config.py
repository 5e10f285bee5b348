"""The policy's file: what it gives, and that a wrong one is told its line."""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from workerd import config
from workerd.config import Config, History, PerJob, Policy, Totals, load
from workerd.errors import ConfigError
from workerd.job import IoLimit, Limits, Net

Load = Callable[[str], Config]
Refuse = Callable[[str], ConfigError]
GIB = 1 << 30


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str) -> Config:
        path = tmp_path / "workerd.toml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return load(path, required=True)

    return read


@pytest.fixture
def refused(read: Load) -> Refuse:
    def refused(text: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            read(text)
        return caught.value

    return refused


class TestMissingFile:
    def test_is_all_defaults_where_it_may_be_missing(self, tmp_path: Path) -> None:
        assert load(tmp_path / "none.toml", required=False) == Config()

    def test_is_an_error_where_it_was_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml: no such file") as caught:
            load(tmp_path / "none.toml", required=True)
        assert caught.value.data == {"path": str(tmp_path / "none.toml"), "line": 0}

    @pytest.mark.parametrize("required", [True, False])
    def test_a_directory_is_an_error_always(self, tmp_path: Path, required: bool) -> None:
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load(tmp_path, required=required)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_one_that_may_not_be_read_is_an_error_always(self, tmp_path: Path) -> None:
        path = tmp_path / "workerd.toml"
        path.touch(mode=0)
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            load(path, required=False)


class TestDefaults:
    @pytest.mark.parametrize("text", ["", "# nothing\n", "[user]\n[defaults]\n"])
    def test_an_empty_file_is_all_defaults(self, read: Load, text: str) -> None:
        assert read(text) == Config()

    def test_are_what_the_documentation_says(self) -> None:
        policy = Config().policy
        assert policy.defaults == PerJob(limits=Limits(), max_output=64 << 20)
        assert (policy.maxima, policy.user, policy.machine) == (PerJob(), Totals(), Totals())
        assert policy.nets == {Net.NONE, Net.BRIDGE}
        assert Config().history == History(count=1000, age=7 * 86_400_000_000)

    def test_the_example_in_the_docstring_is_accepted(self, read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pwd, "getpwnam", lambda name: {"alice": fake(1), "bob": fake(2)}[name])
        monkeypatch.setattr(grp, "getgrnam", lambda name: {"staff": fake(3)}[name])
        assert config.__doc__ is not None
        example = "\n".join(line for line in config.__doc__.split("\n") if line.startswith("    "))
        policy = read(example.replace("\n    ", "\n")).policy
        assert policy.admins == {1, 1001}
        assert policy.connect_users == {2}
        assert policy.connect_groups == {3, 4000}
        assert policy.users == {2: {"jobs": 500}}


def fake(number: int) -> Any:
    """A row of passwd and group."""
    return type("Row", (), {"pw_uid": number, "gr_gid": number})()


class TestValues:
    def test_names_and_numbers_become_ids(self, read: Load) -> None:
        policy = read('admins = ["root", 1001, "1002"]\n[connect]\ngroups = ["root", 7]').policy
        assert policy.admins == {0, 1001, 1002}
        assert policy.connect_groups == {0, 7}

    def test_limits_of_a_job_are_plain_values_in_bytes(self, read: Load) -> None:
        policy = read(
            '[defaults]\nmemory = "1.5G"\nswap = 0\ncpus = 2\ncpuset = "0-3,6"\npids = 10\ncpu_weight = 50\n'
            'io_read_bps = "1M"\nio_write_iops = 100\nio_weight = 5\nmax_output = 4096'
        ).policy
        assert policy.defaults == PerJob(
            limits=Limits(
                memory=3 * GIB // 2,
                swap=0,
                cpus=2.0,
                cpuset="0-3,6",
                pids=10,
                cpu_weight=50,
                io=(IoLimit(read_bps=1 << 20, write_iops=100),),
                io_weight=5,
            ),
            max_output=4096,
        )
        assert type(policy.defaults.limits.memory) is int
        assert msgspec.json.encode(policy.defaults)

    def test_unlimited_is_no_limit(self, read: Load) -> None:
        found = read(
            '[defaults]\nmax_output = "unlimited"\nmemory = "unlimited"\n[user]\ncpus = "unlimited"\njobs = 3\n'
            '[history]\ncount = "unlimited"\nage = "unlimited"'
        )
        assert found.policy.defaults == PerJob()
        assert found.policy.user == Totals(jobs=3)
        assert found.history == History(count=None, age=None)

    @pytest.mark.parametrize(("written", "usec"), [('"1h30m"', 5400), ("90", 90), ('"7d"', 604_800), ("0", 0)])
    def test_ages_are_microseconds(self, read: Load, written: str, usec: int) -> None:
        assert read(f"[history]\nage = {written}").history.age == usec * 1_000_000

    def test_network_none_is_always_there(self, read: Load) -> None:
        assert read("[network]\nmodes = []").policy.nets == {Net.NONE}
        assert read('[network]\nmodes = ["bridge"]').policy.nets == {Net.NONE, Net.BRIDGE}

    def test_the_built_in_default_gives_way_to_a_smaller_maximum(self, read: Load) -> None:
        assert read('[maxima]\nmax_output = "1M"').policy.defaults.max_output == 1 << 20
        assert read('[maxima]\nmax_output = "1G"').policy.defaults.max_output == 64 << 20

    def test_a_policy_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            Policy().admins = frozenset({1000})  # type: ignore[misc]


class TestTotals:
    @pytest.fixture
    def policy(self, read: Load) -> Policy:
        return read(
            '[user]\njobs = 10\nmemory = "1G"\ncpus = 1\n'
            '[users.1000]\njobs = 5\n[users.1001]\nmemory = "unlimited"\n'
            '[groups.50]\njobs = 20\nmemory = "4G"\n[groups.51]\njobs = 30\nmemory = "2G"\n'
            '[groups.52]\njobs = "unlimited"'
        ).policy

    def test_are_the_general_ones_for_most(self, policy: Policy) -> None:
        assert policy.totals(2000, [100]) == Totals(jobs=10, memory=GIB, cpus=1.0)

    def test_of_a_named_user_differ_key_by_key(self, policy: Policy) -> None:
        assert policy.totals(1000, []) == Totals(jobs=5, memory=GIB, cpus=1.0)
        assert policy.totals(1001, []) == Totals(jobs=10, memory=None, cpus=1.0)

    @pytest.mark.parametrize("gids", [[50, 51], [51, 50]])
    def test_of_several_groups_the_most_generous_counts(self, policy: Policy, gids: list[int]) -> None:
        assert policy.totals(2000, gids) == Totals(jobs=30, memory=4 * GIB, cpus=1.0)

    @pytest.mark.parametrize("gids", [[52, 51], [51, 52]])
    def test_no_limit_is_the_most_generous(self, policy: Policy, gids: list[int]) -> None:
        assert policy.totals(2000, gids).jobs is None

    def test_a_user_comes_before_groups(self, policy: Policy) -> None:
        assert policy.totals(1000, [50, 52]) == Totals(jobs=5, memory=4 * GIB, cpus=1.0)


SIZE = "accepted are 1024, 256M, 1.5G, 1GiB"


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            # the wrong name
            ("\nspeed = 1", 2, "speed: no such key; accepted are admins, connect, defaults"),
            ("[user]\njobs = 1\n\njobz = 1", 4, "user.jobz: no such key; accepted are cpus, jobs, max_running, memory"),
            ("user.jobs = 1\nuser.jobz = 1", 2, "user.jobz: no such key"),
            ("user = { jobs = 1, jobz = 1 }", 1, "user.jobz: no such key"),
            ("[maxima]\ncpuset = '0'", 2, "maxima.cpuset: no such key"),
            ("[users.0]\nspeed = 1", 2, "users.0.speed: no such key; accepted are cpus"),
            ("['a`b']", 1, "a`b: no such key"),
            ('["users.0"]\njobs = 1', 1, "users.0: no such key"),
            # the wrong type
            ("user = 5", 1, "user: expected a table, got a whole number"),
            ("\nadmins = 'root'", 2, "admins: expected an array, got a string"),
            ("[users]\n0 = 3", 2, "users.0: expected a table"),
            ("[[user]]\njobs = 1", 1, "user: expected a table, got an array"),
            ("[user]\njobs = true", 2, "user.jobs: not a count: True; accepted are whole numbers from 0"),
            ("[user]\njobs = 1.0", 2, "user.jobs: not a count"),
            ("[user]\njobs = 2024-01-01", 2, "user.jobs: not a count"),
            ("[user]\nmemory = 1.5", 2, SIZE),
            # the wrong value
            ("[user]\n\n# more\nmemory = '5X'", 4, f"user.memory: not a size: '5X'; {SIZE}"),
            ("[user]\nmemory = 0", 2, SIZE),
            ("[user]\njobs = -1", 2, "not a count: -1"),
            ("[user]\ncpus = 0", 2, "user.cpus: not a number of CPUs: 0; accepted are numbers above 0"),
            ("[user]\ncpus = nan", 2, "not a number of CPUs"),
            ("[user]\ncpus = inf", 2, "not a number of CPUs"),
            ("[defaults]\npids = 0", 2, "defaults.pids: not a count: 0; accepted are whole numbers from 1"),
            ("[defaults]\npids = 5000000", 2, "defaults.pids: expected a whole number <= 4194303"),
            ("[maxima]\ncpu_weight = 10001", 2, "maxima.cpu_weight: expected a whole number <= 10000"),
            ("[defaults]\ncpuset = 'all'", 2, "defaults.cpuset: not a list of CPUs: 'all'"),
            ("[history]\nage = 'long'", 2, "history.age: not a duration: 'long'; accepted are 500ms, 10s"),
            ("[history]\nage = -5", 2, "not a duration"),
            ("[history]\nage = true", 2, "not a duration"),
            ("[network]\nmodes = ['host']", 2, '\'host\'; accepted are "none" and "bridge"'),
            # who
            ("admins = ['no-such-user-here']", 1, "admins[1]: no such user: 'no-such-user-here'"),
            ("admins = ['']", 1, "admins[1]: neither a name nor a number"),
            ("admins = [-1]", 1, "neither a name nor a number"),
            ("admins = [4294967295]", 1, "neither a name nor a number"),
            ("admins = ['4294967295']", 1, "neither a name nor a number"),
            ("admins = ['root\\u0000']", 1, "no such user"),
            ('admins = ["root\\u0000"]', 1, "no such user"),
            ('admins = ["٣"]', 1, "neither a name nor a number"),
            ("[users.no-such-user-here]\njobs = 1", 1, "no such user: 'no-such-user-here'"),
            ("[users]\n[user]\njobs=1\n[groups.no-such-group-here]", 4, "no such group"),
            ("[users.0]\njobs = 1\n[users.root]\njobs = 2", 3, "users.root: 0 has a table already"),
            # together
            ("[defaults]\n\nmemory = '2G'\n[maxima]\nmemory = '1G'", 3, "defaults.memory: more than maxima.memory"),
            ("[maxima]\nmemory = '1G'\n[defaults]\nmemory = 'unlimited'", 4, "more than maxima.memory"),
            ("[defaults]\nio_read_bps = 2\n[maxima]\nio_read_bps = 1", 2, "more than maxima.io_read_bps"),
        ],
    )
    def test_names_the_line_and_what_is_accepted(self, refused: Refuse, text: str, line: int, says: str) -> None:
        error = refused(text)
        assert says in error.message
        assert error.data["line"] == line
        assert error.message.startswith(f"{error.data['path']}:{line}: ")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("admins = [\n  'root', # one\n\n  1.5,\n  1001,\n]\n", 4),
            ("admins = [\n  'root',\n  1001, 1.5,\n]\n", 3),
            ("# first\n\nadmins = ['root', 1.5]\n", 3),
            ("[connect]\nusers = [\n'root',\n]\ngroups = [\n'root',\n''\n]", 7),
        ],
    )
    def test_in_an_array_of_several_lines_names_the_elements_own(self, refused: Refuse, text: str, line: int) -> None:
        assert refused(text).data["line"] == line

    @pytest.mark.parametrize("before", ["", "a\n" * 50], ids=["short", "long"])
    def test_after_a_string_of_several_lines_the_line_is_right(self, refused: Refuse, before: str) -> None:
        text = f"[connect]\nusers = ['''\n[user]\njobs = -1\n{before}''']\n[user]\njobs = 1\n"
        assert refused(text).data["line"] == 2
        text = f"[connect]\nusers = ['''\n[user]\njobs = -1\n{before}''']\n[user]\njobs = -1\n"
        assert refused(text).data["line"] == 6 + before.count("\n") + 1
        text = f"x = '''\n[user]\njobs = -1\n{before}'''\n"
        assert refused(text).data["line"] == 1

    def test_the_same_key_in_another_table_is_not_mistaken(self, refused: Refuse) -> None:
        text = "[user]\njobs = 1\n[users.0]\njobs = 2\n[machine]\njobs = -3\n[history]\ncount = 1\n"
        assert refused(text).data["line"] == 6

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_lines_are_counted_whatever_ends_them(self, refused: Refuse, ending: str) -> None:
        assert refused(ending.join(["# \u2028 \x85", "[user]", "", "jobs = -1"])).data["line"] == 4

    def test_in_a_long_file_is_found_quickly(self, refused: Refuse) -> None:
        tables = "".join(f"[users.{uid}]\njobs = {uid}\n" for uid in range(2000))
        assert refused(f"{tables}[machine]\njobs = -1\n").data["line"] == 4002


class TestNotToml:
    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ("a = 1\n\nb =", 3, "not TOML: Invalid value"),
            ("a = 1\n\nb = \n", 3, "not TOML"),
            ("[user]\njobs = 1\njobs = 2", 3, "not TOML: Cannot overwrite a value"),
            ("[user]\n[machine]\n[user]\n", 3, "not TOML: Cannot declare"),
            ("# one\nadmins = [\n 1,\n 2,\n", 2, "not TOML"),
            ("a = '''\n\n", 1, "not TOML"),
            ("a = 1\nb = 2 3\n", 2, "not TOML"),
            ("a = 1\nb = '\x00'\n", 2, "character"),
            pytest.param("a = 1\nb = " + "9" * 5000, 2, "not TOML", id="5000 digits"),
            ("a = 1\n# \udcff\n", 2, "not UTF-8"),
            pytest.param("a = " + "[" * 100_000, 0, "nested too deeply", id="100,000 brackets"),
            ("hello", 1, "not TOML"),
        ],
    )
    def test_names_the_line_where_it_goes_wrong(self, refused: Refuse, text: str, line: int, says: str) -> None:
        error = refused(text)
        assert says in error.message
        assert error.data["line"] == line

    def test_a_place_is_said_once(self, refused: Refuse) -> None:
        assert not re.search(r"at line|at end", refused("a = 1\nb = 2 3\n").message)


class TestCheckConfig:
    """`workerd --check-config`, which `systemctl reload` runs first."""

    @staticmethod
    def check(path: Path, text: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text)
        command = [sys.executable, "-m", "workerd", "--check-config", "--config", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_points_at_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.toml"
        done = self.check(path, "[user]\njobs = 3\n\nmemory = 'lots'\n")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"workerd: CRITICAL: {path}:4: user.memory: not a size: 'lots'")

    def test_says_that_all_is_well(self, tmp_path: Path) -> None:
        done = self.check(tmp_path / "policy.toml", "[user]\njobs = 3\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "the configuration is well-formed\n", "")
