"""docs/json.md holds: each verb's --json, with a real daemon, has the fields that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.host.daemon import ROOT, Daemon, running
from workerctl.verbs import VERBS, load
from workerd.job import Job
from workerd.protocol import InfoResult

pytestmark = pytest.mark.root
ROWS = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) ?\|$", (ROOT / "docs/json.md").read_text(), re.MULTILINE)
JOB = set(Job.__struct_fields__)


def named(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


FIELDS = {verb: set(named(fields)) for verbs, _, fields in ROWS for verb in named(verbs)}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as made:
        made.run("sleep", "1000", name="lives", grace=0)
        made.wait(made.run("sh", "-c", r"echo out; printf '\377\n'; exit 3", name="ended"))
        yield made


@pytest.fixture
def ask(daemon: Daemon) -> Callable[..., Any]:
    def ask(*words: str, code: int = 0) -> Any:
        done = daemon.ctl(*words, "--json")
        assert done.returncode == code, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return lines if words[0] in ("out", "stats", "events") else lines[0]

    return ask


def test_every_verb_with_json_is_documented() -> None:
    options = {
        name: [flag for group in load(name).VERB.groups.values() for one in group for flag in one.flags]
        for name in VERBS
    }
    assert {name for name in VERBS if "--json" in options[name]} == {verb.split()[0] for verb in FIELDS}


@pytest.mark.parametrize(
    "words",
    [("status", "lives"), ("pause", "lives"), ("resume", "lives"), ("update", "--timeout", "1h", "lives"),
     ("kill", "-s", "CONT", "lives"), ("signal", "CONT", "lives"), ("rename", "lives", "lives")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_of_one_job_there_is_an_object(ask: Callable[..., Any], words: tuple[str, ...]) -> None:
    assert set(ask(*words)) == JOB and not FIELDS[words[0]]


def test_of_several_jobs_and_of_lists_there_is_an_array(ask: Callable[..., Any]) -> None:
    assert [set(job) for job in ask("status", "lives", "ended")] == [JOB, JOB]
    assert [set(job) for job in ask("ps", "-a")] == [JOB, JOB]
    assert ask("ps", "--filter", "name=nobody") == []
    assert set(ask("wait", "ended", code=3)) == JOB


def test_started_jobs(ask: Callable[..., Any], daemon: Daemon) -> None:
    started = json.loads(daemon.ctl("run", "--json", "true").stdout)
    assert set(started) == FIELDS["run"] == set(ask("rerun", started["id"]))
    waited = daemon.ctl("run", "--wait", "--json", "--rm", "false")
    assert (waited.returncode, set(json.loads(waited.stdout))) == (1, JOB)
    assert set(ask("rm", started["id"])) == JOB
    stopped = daemon.ctl("run", "sleep", "1000").stdout.decode().strip()
    assert set(ask("stop", stopped)) == JOB


@pytest.mark.parametrize(
    "words", [("explain", "ended"), ("prune", "--all", "--dry-run"), ("version",)], ids=lambda words: words[0]
)
def test_objects_of_their_own(ask: Callable[..., Any], words: tuple[str, ...]) -> None:
    assert set(ask(*words)) == FIELDS[words[0]]


def test_inspect_and_its_translations(ask: Callable[..., Any]) -> None:
    assert [set(job) for job in ask("inspect", "ended")] == [JOB | FIELDS["inspect"]]
    translated = ask("inspect", "--as", "podman", "ended")
    assert set(translated) == FIELDS["inspect --as PROGRAM"]


def test_info_and_doctor(ask: Callable[..., Any], daemon: Daemon) -> None:
    assert set(ask("info")) == set(InfoResult.__struct_fields__)
    assert {frozenset(one) for one in json.loads(daemon.ctl("doctor", "--json").stdout)} == {
        frozenset(FIELDS["doctor"])
    }


def test_lines(ask: Callable[..., Any]) -> None:
    assert [set(line) for line in ask("out", "ended")] == [{"time", "stream", "data"}, {"time", "stream", "base64"}]
    assert {frozenset(line) for line in ask("stats", "-n", "1", "-i", "0.1")} == {frozenset(FIELDS["stats"])}
    assert {frozenset(line) for line in ask("events", "--no-follow")} == {frozenset(FIELDS["events"])}


JOB_VERBS = [name for name in VERBS if {"ID", "ID…"} & set(load(name).VERB.arguments.split())]


@pytest.mark.parametrize("name", JOB_VERBS)
def test_a_failure_leaves_stdout_empty(daemon: Daemon, name: str) -> None:
    before = {"signal": ["TERM"], "update": ["--pids", "9"], "inspect": ["--as", "podman"]}.get(name, [])
    after = ["true"] if name == "exec" else []
    done = daemon.ctl(name, *before, "nowhere", *after)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"workerctl: ") and done.stderr.count(b"\n") == 1
