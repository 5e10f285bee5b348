"""Events from a real daemon: in order, once, to their owners, from a cursor on through everything."""

from __future__ import annotations

import contextlib
import json
import signal
import socket

import pytest

from tests.host.attackers import USER
from tests.host.daemon import ENV, Daemon, as_user
from workerctl import Client
from workerd import eventboard
from workerd.errors import Exhausted, InvalidParams
from workerd.events import Event
from workerd.job import JobSpec, Restart, RestartPolicy
from workerd.protocol import RunParams, SubscribeParams, UpdateParams

OTHER = USER + 1


def story(events: list[Event]) -> list[str]:
    return [str(event.state if event.kind == "state" else event.kind) for event in events]


def until_finished(client: Client, cursor: str, job_id: str) -> list[Event]:
    """A job's events up to its end."""
    found = []
    for event in client.events(cursor, jobs=(job_id,)):
        found.append(event)
        if event.state == "finished":
            break
    return found


def run_as(uid: int, socket_path: str, *argv: str) -> str:
    def run() -> str:
        with Client(socket_path) as client:
            params = RunParams(spec=JobSpec(argv=argv), env=ENV)
            started = client.call("job.run", params)
            client.wait([started.id])
            return str(started.id)

    return str(as_user(uid, run))


def events_as(uid: int, socket_path: str, *, all: bool) -> list[tuple[str | None, int | None]]:
    def read() -> list[tuple[str | None, int | None]]:
        with Client(socket_path) as client:
            return [(event.id, event.uid) for event in client.events("first", all=all, follow=False)]

    found: list[tuple[str | None, int | None]] = as_user(uid, read)
    return found


class TestTheStoryOfAJob:
    def test_each_state_in_order_with_how_it_ended(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            stream = client.events()
            job_id = daemon.run("sh", "-c", "exit 3")
            events = [next(stream) for _ in range(3)]
        assert story(events) == ["starting", "running", "finished"]
        assert {event.id for event in events} == {job_id}
        assert (events[-1].reason, events[-1].exit_code) == ("exited", 3)
        assert sorted(event.time for event in events) == [event.time for event in events]

    def test_all_that_is_done_to_it(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            stream = client.events()
            job_id = daemon.run("sleep", "600", name="old-name")
            client.pause(job_id)
            client.resume(job_id)
            client.rename(job_id, "new-name")
            client.call("job.update", UpdateParams(job_id, timeout=500_000_000))
            client.stop(job_id)
            client.remove(job_id)
            events = [next(stream) for _ in range(9)]
        assert story(events) == [
            *("starting", "running", "paused", "running", "renamed", "updated"),
            *("stopping", "finished", "removed"),
        ]
        stopping = events[6]
        assert (stopping.detail, stopping.signal) == ("asked for", signal.SIGTERM)
        assert events[5].detail == "timeout"
        assert events[4].name == "new-name" and events[4].detail == "was old-name"

    def test_a_start_that_failed(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            stream = client.events()
            with contextlib.suppress(Exception):
                daemon.run("/nowhere/at-all")
            events = [next(stream) for _ in range(2)]
        assert story(events) == ["starting", "finished"]
        assert events[1].reason == "start-failed" and "at-all" in (events[1].detail or "")

    def test_each_try_of_a_restarted_job(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            cursor = client.events().cursor
            policy = RestartPolicy(Restart.ON_FAILURE, 2)
            job_id = daemon.run("sh", "-c", "exit 7", restart=policy)
            events = until_finished(client, cursor, job_id)
        one = ["starting", "running"]
        assert story(events) == [*one, "retry", *one, "retry", *one, "finished"]
        assert [(event.restarts, event.exit_code) for event in events if event.kind == "retry"] == [(1, 7), (2, 7)]

    def test_removed_right_after_its_end(self, daemon: Daemon) -> None:
        """Whoever was told that a job ended may remove it, though that is just being recorded."""
        with daemon.client() as client:
            for _ in range(20):
                job_id = daemon.run("true")
                client.wait([job_id])
                client.remove(job_id)
            stories = [
                story(list(client.events("first", jobs=(job_id,), follow=False))),
            ]
        assert stories == [["starting", "running", "finished", "removed"]]


class TestWhoSeesWhat:
    def test_owners_their_own_and_admins_all_where_they_ask(self, daemon: Daemon) -> None:
        mine, others = run_as(USER, str(daemon.socket), "true"), run_as(OTHER, str(daemon.socket), "true")
        for all_of_them in (False, True):
            seen = events_as(USER, str(daemon.socket), all=all_of_them)
            assert {uid for _, uid in seen} == {USER} and mine in dict(seen)
        assert {uid for _, uid in events_as(0, str(daemon.socket), all=False)} <= {0}
        seen = events_as(0, str(daemon.socket), all=True)
        assert {mine, others} <= {job_id for job_id, _ in seen}

    def test_another_s_job_named_is_as_one_that_there_is_not(self, daemon: Daemon) -> None:
        others = run_as(OTHER, str(daemon.socket), "true")

        def ask() -> tuple[object, object]:
            with Client(str(daemon.socket)) as client:
                answers = [
                    client.call("events.subscribe", SubscribeParams("first", jobs=(job_id,), timeout=0))
                    for job_id in (others, "0000000000")
                ]
            return answers[0], answers[1]

        first, second = as_user(USER, ask)
        assert first == second

    def test_a_cursor_is_refused_where_it_is_not_of_these_events(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            cursor = client.events(all=True).cursor
            with pytest.raises(InvalidParams, match="everybody's"):
                client.events(cursor)


class TestOnFromACursor:
    def test_through_kills_of_the_daemon_each_event_once(self, own_daemon: Daemon) -> None:
        daemon, seen = own_daemon, []
        with daemon.client() as client:
            cursor = client.events().cursor
        jobs = []
        for _ in range(3):
            jobs += [daemon.run("sh", "-c", "sleep 0.3; exit 4") for _ in range(4)]
            daemon.restart()
            with daemon.client() as client:
                stream = client.events(cursor)
                seen += [next(stream) for _ in range(5)]
                cursor = stream.cursor
        for job_id in jobs:
            daemon.wait(job_id)
        with daemon.client() as client:
            seen += list(client.events(cursor, follow=False))
        assert len({event.cursor for event in seen}) == len(seen)
        for job_id in jobs:
            assert story([event for event in seen if event.id == job_id]) == ["starting", "running", "finished"]

    def test_a_lost_database_is_a_gap(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        with daemon.client() as client:
            cursor = client.events().cursor
        daemon.wait(daemon.run("true"))
        daemon.stop()
        for path in daemon.state.glob("state.db*"):
            path.unlink()
        daemon.start()
        with daemon.client() as client:
            first, *rest = client.events(cursor, follow=False)
        assert first.kind == "gap" and first.detail
        assert story(rest) == ["finished"], "what was found again is told"


class TestSlowSubscribers:
    def test_one_that_does_not_read_misses_nothing_and_holds_nobody_up(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        with daemon.client() as slow, daemon.client() as client:
            stream = slow.events()
            job_ids = [daemon.run("true") for _ in range(60)]
            for job_id in job_ids:
                daemon.wait(job_id)
            quick = client.events("first", follow=False)
            assert sum(event.state == "finished" for event in quick) == 60
            seen = [next(stream) for _ in range(180)]
        assert [event.id for event in seen if event.state == "starting"] == job_ids

    def test_too_many_at_once_are_refused_and_the_others_go_on(self, daemon: Daemon) -> None:
        request = {"jsonrpc": "2.0", "method": "events.subscribe", "params": {}}
        lines = [json.dumps({**request, "id": number}) for number in range(eventboard.MAX_WAITING + 1)]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.socket))
            sock.sendall("".join(f"{line}\n" for line in lines).encode())
            with sock.makefile("rb") as answers:
                refused = json.loads(answers.readline())
                assert refused["error"]["data"]["kind"] == Exhausted.kind
                job_id = daemon.run("true")
                answered = json.loads(answers.readline())
                assert answered["result"]["events"][0]["id"] == job_id
