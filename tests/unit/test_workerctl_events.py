"""`workerctl events`: what is asked for, what is shown, and that it goes on through anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, ctl, make_job
from workerctl import eventlines
from workerctl.eventfilter import KEYS, KINDS, EventFilter
from workerctl.options import UsageError
from workerd.errors import NoSuchJob
from workerd.events import Event, EventKind
from workerd.job import Job, Reason, State
from workerd.protocol import JobParams, SubscribeParams, SubscribeResult

HOUR = 3_600_000_000
NOW = 1_790_000_000_000_000


def event(number: int, kind: EventKind = EventKind.STATE, **fields: Any) -> Event:
    values = {"id": "aaaaaaaaaa", "uid": 0, "state": State.RUNNING, **fields}
    return Event(kind, NOW + number, f"epochepoch.0.{number}", **values)


EVENTS = (
    event(1, state=State.STARTING, name="build"),
    event(2, EventKind.LIMIT, limit="memory", count=4),
    event(3, EventKind.OOM, count=1),
    event(4, state=State.FINISHED, reason=Reason.EXITED, exit_code=3),
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    made.answers["events.subscribe"] = lambda params: SubscribeResult(EVENTS, "epochepoch.0.4")
    yield made
    made.close()


class TestWhatIsShown:
    def test_a_line_each_with_time_job_and_words(self, fake: FakeWorkerd) -> None:
        lines = ctl(fake, "events", "--no-follow").out.decode().splitlines()
        assert [line.split("  ", 2)[1:] for line in lines] == [
            ["aaaaaaaaaa (build)", "starting"],
            ["aaaaaaaaaa", "ran against the memory limit, 4 times by now"],
            ["aaaaaaaaaa", "out of memory: 1 process killed by the kernel"],
            ["aaaaaaaaaa", "finished: exited with 3"],
        ]

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"state": State.STOPPING, "detail": "asked for", "signal": 15}, "stopping: asked for, SIGTERM sent"),
            ({"state": State.STOPPING, "detail": "timeout"}, "stopping: its time is over"),
            ({"state": State.PAUSED, "detail": "timeout"}, "paused: its time is over"),
            ({"state": State.PAUSED}, "paused"),
            (
                {"state": State.FINISHED, "reason": Reason.START_FAILED, "detail": "exec: no such file"},
                "finished: could not start: exec: no such file",
            ),
            (
                {"state": State.FINISHED, "reason": Reason.OOM, "signal": 9},
                "finished: killed by the kernel, out of memory",
            ),
            (
                {"kind": EventKind.RETRY, "restarts": 2, "reason": Reason.EXITED, "exit_code": 7},
                "to be tried again (2): exited with 7",
            ),
            ({"kind": EventKind.RENAMED, "name": "b", "detail": "was a"}, "renamed to b, was a"),
            ({"kind": EventKind.RENAMED, "detail": "was a"}, "without a name now, was a"),
            ({"kind": EventKind.UPDATED, "detail": "memory"}, "limits changed: memory"),
            ({"kind": EventKind.REMOVED}, "removed"),
        ],
    )
    def test_every_kind_has_its_words(self, fields: dict[str, Any], text: str) -> None:
        made = event(1, **fields)
        plain = {name: getattr(made, name) for name in Event.__struct_fields__}
        assert eventlines.what(plain) == text

    def test_a_gap_is_said_whatever_is_filtered(self, fake: FakeWorkerd) -> None:
        gap = Event(EventKind.GAP, NOW, "epochepoch.0.0", detail="it is gone")
        fake.answers["events.subscribe"] = lambda params: SubscribeResult((gap,), "epochepoch.0.4")
        assert ctl(fake, "events", "--no-follow", "--filter", "kind=oom").out.decode().endswith("gap: it is gone\n")

    def test_for_programs_every_field_and_an_object_a_line(self, fake: FakeWorkerd) -> None:
        shown = [json.loads(line) for line in ctl(fake, "events", "--no-follow", "--json").out.splitlines()]
        assert [set(one) for one in shown] == [set(Event.__struct_fields__)] * 4
        assert (shown[3]["exit_code"], shown[3]["signal"], shown[3]["restarts"]) == (3, None, 0)
        ran = ctl(fake, "events", "--no-follow", "--format", "{kind}:{count}")
        assert ran.out == b"state:\nlimit:4\noom:1\nstate:\n"

    def test_the_fields_are_those_of_the_protocol(self) -> None:
        assert eventlines.FIELDS == Event.__struct_fields__
        assert set(KINDS) == set(EventKind)


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        ("words", "params"),
        [
            (["--no-follow"], SubscribeParams("first", timeout=0)),
            (["--no-follow", "--since", "now"], SubscribeParams("now", timeout=0)),
            (
                ["--no-follow", "--since", "abcdefghjk.0.17", "-a"],
                SubscribeParams("abcdefghjk.0.17", all=True, timeout=0),
            ),
            (["--no-follow", "--since", "10m"], SubscribeParams("first", timeout=0)),
        ],
    )
    def test_where_to_begin(self, fake: FakeWorkerd, words: list[str], params: SubscribeParams) -> None:
        assert ctl(fake, "events", *words).code == 0
        assert fake.asked("events.subscribe") == [params]

    def test_all_pages(self, fake: FakeWorkerd) -> None:
        pages = [
            SubscribeResult(EVENTS[:2], "epochepoch.0.2", more=True),
            SubscribeResult(EVENTS[2:], "epochepoch.0.4"),
        ]
        fake.answers["events.subscribe"] = lambda params: pages.pop(0)
        assert len(ctl(fake, "events", "--no-follow").out.splitlines()) == 4
        assert [asked.cursor for asked in fake.asked("events.subscribe")] == ["first", "epochepoch.0.2"]

    def test_since_a_time(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "events", "--no-follow", "--json", "--since", f"@{(NOW + 3) / 1e6:.6f}")
        assert [json.loads(line)["kind"] for line in ran.out.splitlines()] == ["oom", "state"]

    def test_followed_until_workerd_is_gone_for_good(self, fake: FakeWorkerd) -> None:
        pages = [SubscribeResult((), "epochepoch.0.0"), SubscribeResult(EVENTS, "epochepoch.0.4")]

        def answer(params: SubscribeParams) -> SubscribeResult:
            if not pages:
                raise NoSuchJob("enough")
            return pages.pop(0)

        fake.answers["events.subscribe"] = answer
        ran = ctl(fake, "events", "--json")
        assert len(ran.out.splitlines()) == 4
        assert fake.asked("events.subscribe") == [
            SubscribeParams("now", timeout=0),
            SubscribeParams("epochepoch.0.0"),
            SubscribeParams("epochepoch.0.4"),
        ]

    def test_jobs_by_name_and_such_as_are_forgotten(self, fake: FakeWorkerd) -> None:
        def status(params: JobParams) -> Job:
            if params.id == "bbb":
                return make_job(id="bbbbbbbbbb")
            raise NoSuchJob(f"no such job: {params.id}")

        fake.answers["job.status"] = status
        assert ctl(fake, "events", "--no-follow", "bbb", "zzzzzzzzzz").code == 0
        assert fake.asked("events.subscribe")[0].jobs == ("bbbbbbbbbb", "zzzzzzzzzz")
        ran = ctl(fake, "events", "nobody")
        assert ran.code == 125 and "no such job: nobody" in ran.err

    @pytest.mark.parametrize("words", [["-f", "--no-follow"], ["--since", "yesterday"], ["--filter", "label=a"]])
    def test_what_makes_no_sense_is_refused_at_once(self, fake: FakeWorkerd, words: list[str]) -> None:
        assert ctl(fake, "events", *words).code == 125 and not fake.requests


class TestFilter:
    @pytest.mark.parametrize(
        ("texts", "numbers"),
        [
            ([], [1, 2, 3, 4]),
            (["kind=oom", "kind=limit"], [2, 3]),
            (["state=finished"], [4]),
            (["reason=exited", "exit-code=3"], [4]),
            (["exit-code=4"], []),
            (["name=bu*"], [1]),
            (["user=0", "id=aaa", "kind=oom"], [3]),
            (["user=1"], []),
        ],
    )
    def test_keeps_what_matches(self, texts: list[str], numbers: list[int]) -> None:
        plain = [{name: getattr(one, name) for name in Event.__struct_fields__} for one in EVENTS]
        wanted = EventFilter(texts)
        assert [one["time"] - NOW for one in plain if wanted.matches(one)] == numbers

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("kinds=x", "did you mean kind?"),
            ("zzz=x", f"choose {KEYS[0]}"),
            ("kind", "write kind=VALUE"),
            ("kind=bad", "choose state, retry"),
            ("exit-code=x", "a number"),
        ],
    )
    def test_one_that_could_never_match_is_refused(self, text: str, part: str) -> None:
        with pytest.raises(UsageError) as caught:
            EventFilter([text])
        assert part in str(caught.value)
