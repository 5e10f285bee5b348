"""What is offered at the cursor of a command line, from the verbs' tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, ctl, make_job
from workerctl.completing import COMMAND, DIRECTORIES, FILES, WORDS, complete, values
from workerctl.options import COMMON
from workerctl.verbs import VERBS, load
from workerd import protocol
from workerd.job import JobSpec, Net, State
from workerd.sandbox import CAPABILITIES


def offered(*words: str) -> list[str]:
    return [word for word, _ in complete(words).candidates]


def kind(*words: str) -> tuple[str, str]:
    answer = complete(words)
    return answer.kind, answer.place


class TestTables:
    @pytest.mark.parametrize("name", VERBS)
    def test_what_help_calls_a_value_is_known_here(self, name: str) -> None:
        verb = load(name).VERB
        options = [option for group in (*verb.groups.values(), COMMON) for option in group]
        named = {option.metavar for option in options if option.metavar}
        named |= {part.strip("[]…") for part in verb.arguments.split()} - {"OPTIONS", "--", "", "COMMAND", "ARGUMENT"}
        known = {*values.SOURCES, *values.FILE_LIKE, *values.FREE}
        assert {metavar for metavar in named - known if "|" not in metavar} == set()

    @pytest.mark.parametrize("name", VERBS)
    def test_every_option_of_a_verb_is_offered(self, name: str) -> None:
        verb = load(name).VERB
        flags = {flag for group in (*verb.groups.values(), COMMON) for option in group for flag in option.flags}
        assert set(offered(name, "-")) == flags

    def test_values_are_those_that_are_taken(self) -> None:
        assert set(values.CAPABILITIES) == set(CAPABILITIES)
        assert set(values.NETS) == {net.value for net in Net}


class TestPlaces:
    def test_the_verb_comes_first_or_after_the_options_of_all(self) -> None:
        assert offered("") == list(VERBS) == offered("--socket", "/s", "")
        assert offered("--socket=/s", "ru") == ["run"]
        assert kind("--socket", "") == (FILES, "") and kind("--socket=/r") == (FILES, "--socket=")

    def test_machines_are_those_of_the_ssh_configuration(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert offered("-H", "") == ["ssh://"]
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text("Host build *.lab\n  Port 22\nhost ci\n")
        assert offered("ps", "-H", "ssh://") == ["ssh://build", "ssh://ci"]

    def test_an_alias_is_its_verb(self) -> None:
        assert offered("r", "--net", "b") == ["bridge"]

    @pytest.mark.parametrize(
        ("words", "place"),
        [
            (["run", ""], "1"),
            (["run", "--", "l"], "2"),
            (["run", "ls", "-"], "1"),
            (["run", "-m", "1G", "-fi", "ls", "--", "x"], "4"),
            (["exec", "-it", "web", "ba"], "3"),
            (["--socket", "/s", "run", "ls", ""], "3"),
        ],
    )
    def test_a_command_and_all_after_it_are_another_programs(self, words: list[str], place: str) -> None:
        assert kind(*words) == (COMMAND, place)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["run", "-w", ""], (DIRECTORIES, "")),
            (["run", "-w/us"], (DIRECTORIES, "-w")),
            (["run", "--rw=/s"], (FILES, "--rw=")),
            (["run", "--bind", "/a:/b"], (FILES, "/a:")),
            (["run", "--bind=/a:/b"], (FILES, "--bind=/a:")),
            (["run", "-m", ""], (WORDS, "")),
        ],
    )
    def test_paths_are_the_shells_to_find(self, words: list[str], expected: tuple[str, str]) -> None:
        assert kind(*words) == expected

    def test_an_option_is_offered_once_unless_it_may_come_again(self) -> None:
        again = offered("run", "--net", "none", "-e", "A", "--")
        assert "--net" not in again and "--env" in again

    def test_no_option_is_offered_after_two_dashes(self) -> None:
        assert offered("stop", "--", "-") == []

    def test_what_is_no_verb_has_nothing(self) -> None:
        assert (kind("nonsense", ""), offered("nonsense", "")) == ((WORDS, ""), [])


class TestValues:
    def test_signals_as_they_may_be_written(self) -> None:
        assert offered("kill", "-s", "HU") == ["HUP"] and offered("signal", "SIGHU") == ["SIGHUP"]

    def test_conditions_and_their_values(self) -> None:
        assert "state=" in offered("ps", "--filter", "")
        assert offered("ps", "--filter=state=p") == ["--filter=state=paused"]
        assert "kind=" in offered("events", "--filter", "") and "label=" not in offered("events", "--filter", "")
        assert offered("events", "--filter", "kind=o") == ["kind=oom"]
        assert "{cursor}" in offered("events", "--format", "")

    def test_fields_of_a_template(self) -> None:
        assert offered("ps", "--format", "{id} {usage.memory_pe") == ["{id} {usage.memory_peak}"]
        assert "{status}" in offered("ps", "--format", "")
        assert {"{warnings}", "{exit_code}"} <= set(offered("run", "--format", ""))

    @pytest.mark.parametrize(("verb", "field"), [("explain", "advice"), ("doctor", "level"), ("rerun", "warnings")])
    def test_fields_of_a_verb_of_its_own_kind(self, verb: str, field: str) -> None:
        assert offered(verb, "--format", "{" + field[:3]) == ["{" + field + "}"]
        assert "{status}" not in offered(verb, "--format", "")

    def test_topics_are_helped_with_too(self) -> None:
        assert offered("help", "exit") == ["exit-codes"] and "run" in offered("help", "")

    def test_users_and_groups(self) -> None:
        assert "root" in offered("run", "--user", "ro") and "root:root" in offered("run", "--user", "root:ro")


class TestJobs:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> FakeWorkerd:
        made = FakeWorkerd(tmp_path / "sock")
        spec = JobSpec(argv=("sh", "-c", "a\n\tb\x1b[31m"), name="web", labels={"team": "blue", "odd": "a b"})
        jobs = (make_job(id="aaaa000000", state=State.RUNNING, spec=spec), make_job(id="bbbb000000"))
        made.answers["job.list"] = lambda params: protocol.ListResult(jobs)
        return made

    def test_by_name_or_id_with_what_they_are(self, fake: FakeWorkerd) -> None:
        lines = ctl(fake, "__complete", "out", "").out.decode().split("\n")
        assert lines == ["words\t", "web\trunning: sh -c 'a\\n\\tb\\x1b[31m'", "bbbb000000\tdone: true", ""]
        fake.close()

    def test_those_alone_with_which_the_verb_can_do_something(self, fake: FakeWorkerd) -> None:
        ctl(fake, "__complete", "resume", "")
        assert fake.asked("job.list")[0].states == (State.PAUSED,)
        fake.close()

    def test_not_one_that_is_named_already(self, fake: FakeWorkerd) -> None:
        assert ctl(fake, "__complete", "out", "web", "").out == b"words\t\n"
        assert ctl(fake, "__complete", "status", "web", "").out == b"words\t\nbbbb000000\tdone: true\n"
        fake.close()

    def test_a_label_with_spaces_by_its_key(self, fake: FakeWorkerd) -> None:
        assert ctl(fake, "__complete", "ps", "-l", "").out == b"words\t\nteam=blue\t\nodd\t\n"
        fake.close()

    @pytest.mark.parametrize("raw", [b"rubbish\n", b"", b'{"jsonrpc":"2.0","id":1,"result":{}}\n'])
    def test_a_daemon_that_answers_nonsense_is_no_error(self, fake: FakeWorkerd, raw: bytes) -> None:
        fake.raw = raw
        ran = ctl(fake, "__complete", "stop", "")
        assert (ran.code, ran.out, ran.err) == (0, b"words\t\n", "")
        fake.close()


class TestVerb:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_prints_the_script(self, shell: str) -> None:
        ran = ctl(None, "completion", shell)
        assert ran.code == 0 and b"workerctl __complete" in ran.out

    @pytest.mark.parametrize("words", [(), ("csh",), ("bash", "zsh")])
    def test_says_which_there_are(self, words: tuple[str, ...]) -> None:
        ran = ctl(None, "completion", *words)
        assert ran.code == 125 and "bash, zsh, fish" in ran.err

    def test_starts_without_what_is_heavy(self) -> None:
        heavy = {"msgspec", "asyncio", "rich", "socket", "typing", "argparse", "json", "re", "signal"}
        code = (
            "import sys, workerctl.cli; workerctl.cli.main(['__complete', 'run', '--m']);"
            f"print(*{heavy!r} & set(sys.modules))"
        )
        ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[-1] == ""
