"""What programs see: --json, --format, --filter, -q, and that nothing else is on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_workerctl_terminal import HOSTILE, on_terminal
from tests.unit.workerctl_fakes import FakeWorkerd, ctl, make_job
from workerctl.cells import columns, fitted
from workerctl.filters import KEYS, REASONS, STATES, Filter
from workerctl.jobfields import DERIVED
from workerctl.options import UsageError
from workerctl.template import Template
from workerctl.topics import TOPICS
from workerctl.verbs import VERBS, load
from workerd import protocol
from workerd.job import Job, JobSpec, Limits, Reason, State, Usage

JOBS = (
    make_job(id="aaaaaaaaaa", spec=JobSpec(("make", "-j4"), name="build", labels={"team": "a.b", "x.y": "z"})),
    make_job(id="bbbbbbbbbb", spec=JobSpec(("sleep", "9"), name="web-1", limits=Limits(memory=1 << 28)), uid=12345),
    make_job(id="cccccccccc", reason=Reason.OOM, exit_code=None, signal=9, usage=Usage(memory_peak=1 << 20)),
    make_job(id="dddddddddd", exit_code=3),
    make_job(id="eeeeeeeeee", state=State.RUNNING, spec=JobSpec(("sh", "-c", HOSTILE))),
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    def listed(params: protocol.ListParams) -> protocol.ListResult:
        chosen = [job for job in JOBS if not params.states or job.state in params.states]
        return protocol.ListResult(tuple(chosen[: params.limit]))

    def one(params: Any) -> Job:
        return next(job for job in JOBS if job.id.startswith(params.id))

    made = FakeWorkerd(tmp_path / "sock")
    made.answers.update({method: one for method, known in protocol.METHODS.items() if known.result is Job})
    made.answers["job.list"] = listed
    made.answers["job.wait"] = lambda params: protocol.WaitResult(tuple(JOBS[: len(params.ids)]))
    yield made
    made.close()


def filled(text: str, value: dict[str, Any]) -> str:
    return Template(text).fill(value, str)


class TestTemplate:
    VALUE = {"id": "k3", "n": 5, "none": None, "on": True, "list": ["é", 1], "in": {"er": {"x": 1}}}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("{id}", "k3"),
            ("{.id}", "k3"),
            ("{id}:{n}", "k3:5"),
            ("<{none}>", "<>"),
            ("{on} {list}", 'true ["é",1]'),
            ("{in.er.x}", "1"),
            ("{none.deeper}", ""),
            ("{id:5}|{id:<5}|{id:>5}|{id:^5}|", "k3   |k3   |   k3| k3  |"),
            ("{id:1}", "k3"),
            (r"a\tb\n\\n", "a\tb\n\\n"),
            ("{{id}}", "{id}"),
            ("", ""),
        ],
    )
    def test_is_filled(self, text: str, shown: str) -> None:
        assert filled(text, self.VALUE) == shown

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("{idd}", "no field {idd}; did you mean id?"),
            ("{zzzz}", "there are: id, in, list"),
            ("{id.__class__}", "id has no fields"),
            ("{__class__}", "no field"),
            ("{id.upper()}", "is no field"),
            ("{list[0]}", "is no field"),
            ("{id!r}", "is no field"),
            ("{id:s}", "is no width"),
            ("{id:99999}", "1000 at most"),
            ("{id:²}", "is no width"),
            ("{", "not closed"),
            ("}", "closes nothing"),
            ("{}", "is no field"),
        ],
    )
    def test_refuses_all_that_is_no_field(self, text: str, part: str) -> None:
        with pytest.raises(UsageError) as caught:
            filled(text, self.VALUE)
        assert part in str(caught.value)

    def test_widths_are_columns_of_a_terminal(self) -> None:
        assert filled("{id:6}|", {"id": "漢字"}) == "漢字  |"


class TestCells:
    @pytest.mark.parametrize("text", ["", "plain", "漢字漢字漢字", "a漢b字c", "e\u0301\u0301x" * 5, "😀" * 9])
    def test_fitted_is_exactly_that_wide(self, text: str) -> None:
        for width in range(12):
            for dots in ("…", "..."):
                assert columns(fitted(text, width, dots=dots)) == width


class TestFormat:
    def test_a_line_for_each_job(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "ps", "-a", "--format", r"{id}\t{status}\t{name}\t{limit}\t{labels.team}\t{labels.x.y}")
        assert ran.out.decode().splitlines()[:4] == [
            "aaaaaaaaaa\tdone\tbuild\t\ta.b\tz",
            "bbbbbbbbbb\tdone\tweb-1\t256M\t\t",
            "cccccccccc\tout of memory\t\t\t\t",
            "dddddddddd\texit 3\t\t\t\t",
        ]

    def test_every_derived_field_is_there_for_every_job_and_explained(self, fake: FakeWorkerd) -> None:
        for name in DERIVED:
            assert ctl(fake, "ps", "--format", f"<{{{name}}}>").code == 0
            assert f"{{{name}}}" in TOPICS["format"][1]

    def test_values_are_raw_in_a_pipe_and_harmless_on_a_terminal(self, fake: FakeWorkerd) -> None:
        hostile = make_job(detail=HOSTILE)
        fake.answers["job.status"] = lambda params: hostile
        assert ctl(fake, "status", "--format", "{detail}", "e").out == HOSTILE.encode() + b"\n"
        text = on_terminal(fake, 200, "status", "--format", "{detail}", "e")
        assert not set("\x1b\r\x07\x9b\u202e") & set(text)

    @pytest.mark.parametrize(
        "words",
        [
            ["ps"],
            *([verb, "a"] for verb in ("status", "wait", "stop", "kill", "pause", "resume", "rm")),
            ["rename", "a", "b"],
            ["signal", "HUP", "a"],
            ["update", "--mem", "1G", "a"],
        ],
    )
    def test_every_verb_that_gives_jobs_has_it_and_json(self, fake: FakeWorkerd, words: list[str]) -> None:
        assert ctl(fake, *words[:1], "--format", "{id}", *words[1:]).out.startswith(b"aaaaaaaaaa\n")
        shown = json.loads(ctl(fake, *words[:1], "--json", *words[1:]).out)
        job = shown[0] if words[0] == "ps" else shown
        assert job["id"] == "aaaaaaaaaa" and set(job) == set(Job.__struct_fields__)

    def test_a_bad_one_is_refused_before_anything_is_done(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "stop", "--format", "{id", "a")
        assert (ran.code, ran.out) == (125, b"") and "not closed" in ran.err and not fake.requests
        ran = ctl(fake, "kill", "--format", "{id}", "--json", "a")
        assert ran.code == 125 and "give one of them" in ran.err and not fake.requests
        assert "empty template" in ctl(fake, "ps", "--format", "").err

    @pytest.mark.parametrize("words", [["inspect", "--as", "podman", "a"], ["wait", "--match", "x", "a"]])
    def test_where_no_job_is_shown_it_is_refused(self, fake: FakeWorkerd, words: list[str]) -> None:
        ran = ctl(fake, *words, "--format", "{id}")
        assert (ran.code, ran.out) == (125, b"") and ran.err.count("\n") == 1 and not fake.requests

    def test_of_what_is_no_job(self, fake: FakeWorkerd) -> None:
        assert ctl(None, "version", "--format", "{workerctl}").out.startswith(b"0.")

    def test_of_a_started_job_the_fields_of_its_json(self, fake: FakeWorkerd) -> None:
        fake.answers["job.run"] = fake.answers["job.rerun"] = lambda params: protocol.RunResult(
            "aaaaaaaaaa", State.QUEUED, warnings=("a", "b"), waits_for="room"
        )
        template, shown = r"{id}\t{state}\t{waits_for}\t{warnings}", b'aaaaaaaaaa\tqueued\troom\t["a","b"]\n'
        for words in (["run", "--format", template, "make"], ["rerun", "--format", template, "a"]):
            ran = ctl(fake, *words)
            assert (ran.code, ran.out) == (0, shown) and "warning: b" in ran.err

    def test_of_a_run_that_is_waited_for_the_whole_job(self, fake: FakeWorkerd) -> None:
        fake.answers["job.run"] = lambda params: protocol.RunResult("aaaaaaaaaa", State.RUNNING)
        ran = ctl(fake, "run", "--wait", "--format", "{id} {status} {labels.team} {exit_code}", "make")
        assert (ran.code, ran.out) == (0, b"aaaaaaaaaa done a.b 0\n")

    def test_of_a_verdict(self, fake: FakeWorkerd) -> None:
        fake.answers["job.status"] = lambda params: JOBS[3]
        fake.answers["output.wait"] = lambda params: protocol.OutputWaitResult(0, 0, finished=True)
        fake.answers["output.read"] = lambda params: protocol.OutputReadResult(b"", 0, 0, finished=True)
        ran = ctl(fake, "explain", "--format", r"{id}\t{kind}\t{command}", "d")
        assert ran.out == b"dddddddddd\tfailure\tworkerctl out --stderr dddddddddd\n"

    def test_of_what_was_pruned(self, fake: FakeWorkerd) -> None:
        fake.answers["job.prune"] = lambda params: protocol.PruneResult(("aaaaaaaaaa",), 7)
        ran = ctl(fake, "prune", "-a", "--dry-run", "--format", "{bytes} {dry_run} {jobs}")
        assert (ran.out, ran.err) == (b'7 true ["aaaaaaaaaa"]\n', "")

    def test_of_each_check_of_doctor(self, fake: FakeWorkerd) -> None:
        lines = ctl(None, "doctor", "--format", r"{part}\t{level}\t{check}").out.decode().splitlines()
        found = json.loads(ctl(None, "doctor", "--json").out)
        assert [line.split("\t") for line in lines] == [[one["part"], one["level"], one["check"]] for one in found]

    @pytest.mark.parametrize(
        "words", [["run", "x"], ["run", "--wait", "x"], ["rerun", "a"], ["explain", "a"], ["prune", "-a"]], ids=" ".join
    )
    def test_one_with_another_field_is_refused_before_anything_is_done(
        self, fake: FakeWorkerd, words: list[str]
    ) -> None:
        for template, part in (("{statee}", "no field {statee}"), ("{id", "not closed"), ("", "empty template")):
            ran = ctl(fake, words[0], "--format", template, *words[1:])
            assert (ran.code, ran.out) == (125, b"") and part in ran.err and not fake.requests
        ran = ctl(fake, words[0], "--format", "{id}", "--json", *words[1:])
        assert ran.code == 125 and "give one of them" in ran.err and not fake.requests

    def test_every_verb_with_json_has_it_but_for_lines_of_output(self) -> None:
        for name in VERBS:
            flags = {flag for group in load(name).VERB.groups.values() for option in group for flag in option.flags}
            assert ("--format" in flags) == ("--json" in flags and name != "out"), name

    def test_every_verb_that_shows_something_has_json(self) -> None:
        silent = {"attach", "exec", "help", "replay", "complete", "completion", "dial-stdio", "metrics", "top"}
        for name in set(VERBS) - silent:
            flags = [flag for group in load(name).VERB.groups.values() for option in group for flag in option.flags]
            assert "--json" in flags, name


class TestFilter:
    @pytest.mark.parametrize(
        ("words", "ids"),
        [
            (["id=aa"], "a"),
            (["name=web-*"], "b"),
            (["name=build", "name=web-1"], "ab"),
            (["user=12345"], "b"),
            (["reason=oom"], "c"),
            (["reason=oom", "exit-code=3"], ""),
            (["exit-code=3"], "d"),
            (["state=running"], "e"),
            (["state=finished", "command=sleep"], "b"),
            (["command=make *"], "a"),
            (["command=mak"], "a"),
        ],
    )
    def test_keeps_what_matches(self, fake: FakeWorkerd, words: list[str], ids: str) -> None:
        ran = ctl(fake, "ps", "-q", *[part for word in words for part in ("--filter", word)])
        assert ran.out.decode().split() == [one * 10 for one in ids]

    def test_states_and_labels_are_the_daemons_to_look_for(self, fake: FakeWorkerd) -> None:
        ctl(fake, "ps", "--filter", "state=paused", "--filter", "label=a=b", "-l", "c")
        assert fake.asked("job.list") == [protocol.ListParams(states=(State.PAUSED,), labels={"a": "b", "c": None})]
        assert Filter(["reason=oom"]).params() == {"states": ["finished"]}

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("stat=x", "did you mean state?"),
            ("zzz=x", "choose id, name"),
            ("state", "write state=VALUE"),
            ("state=run", "choose queued, starting"),
            ("reason=bad", "choose exited"),
            ("exit-code=x", "a number"),
        ],
    )
    def test_one_that_could_never_match_is_refused(self, text: str, part: str) -> None:
        with pytest.raises(UsageError) as caught:
            Filter([text])
        assert part in str(caught.value)

    def test_knows_all_states_and_reasons_and_is_explained(self) -> None:
        assert STATES == tuple(State) and set(REASONS) == set(Reason)
        assert all(word in TOPICS["filter"][1] for word in (*KEYS, *STATES, *REASONS))


class TestPs:
    def test_last_asks_for_no_more(self, fake: FakeWorkerd) -> None:
        assert len(ctl(fake, "ps", "-q", "-n", "2").out.split()) == 2
        assert fake.asked("job.list") == [protocol.ListParams(all=True, limit=2)]

    def test_no_trunc_cuts_nothing_off(self, fake: FakeWorkerd) -> None:
        assert "\\x1b[2J" in on_terminal(fake, 40, "ps", "--no-trunc", NO_COLOR="1")
        assert "\\x1b[2J" not in on_terminal(fake, 40, "ps", NO_COLOR="1")

    def test_memory_is_a_bar_against_its_limit_where_there_is_room(self, fake: FakeWorkerd) -> None:
        job = make_job(
            state=State.RUNNING,
            spec=JobSpec(("x",), limits=Limits(memory=1 << 28)),
            usage=Usage(memory_current=1 << 27),
        )
        fake.answers["job.list"] = lambda params: protocol.ListResult((job,))
        assert "████····  128M / 256M" in on_terminal(fake, 120, "ps", NO_COLOR="1")
        posix: dict[str, Any] = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        assert "####....  128M / 256M" in on_terminal(fake, 120, "ps", NO_COLOR="1", **posix)
        assert "█" not in on_terminal(fake, 50, "ps", NO_COLOR="1")
        assert "█" not in ctl(fake, "ps").out.decode()


class TestTopics:
    @pytest.mark.parametrize("name", sorted(TOPICS))
    def test_fit_into_80_columns_and_are_found(self, name: str) -> None:
        assert ctl(None, "help", name).out.decode() == TOPICS[name][1]
        assert max(map(len, TOPICS[name][1].splitlines())) < 80 and name in ctl(None, "help").out.decode()
