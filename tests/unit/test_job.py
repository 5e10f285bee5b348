"""What a job is: its states, its exit code, and what a spec may say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from workerd.errors import WrongState
from workerd.job import (
    ID_ALPHABET,
    TRANSITIONS,
    Job,
    JobSpec,
    Limits,
    Mount,
    Reason,
    StartError,
    State,
    change,
    new_id,
    shell_code,
)

PAIRS = [(before, after) for before in State for after in State]
LEGAL = {
    ("queued", "starting"),
    ("queued", "finished"),
    ("starting", "running"),
    ("starting", "stopping"),
    ("starting", "queued"),
    ("running", "queued"),
    ("paused", "queued"),
    ("stopping", "queued"),
    ("starting", "finished"),
    ("running", "paused"),
    ("running", "stopping"),
    ("running", "finished"),
    ("paused", "running"),
    ("paused", "stopping"),
    ("paused", "finished"),
    ("stopping", "finished"),
}
"""Written out once more, so that a change of the table is a decision."""


def job(state: State = State.RUNNING, **fields: Any) -> Job:
    return Job(id="a1", uid=1, gid=1, groups=(), spec=JobSpec(argv=("true",)), state=state, created=1, **fields)


class TestTransitions:
    @pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda state: str(state))
    def test_each_pair_is_legal_or_one_clear_error_that_changes_nothing(self, before: State, after: State) -> None:
        old = job(before)
        if (before, after) in LEGAL:
            assert change(old, after).state is after
        else:
            with pytest.raises(WrongState, match=f"job a1 is {before}; it cannot become {after}") as caught:
                change(old, after)
            assert caught.value.data == {"id": "a1", "state": before}
        assert old == job(before)

    def test_every_state_is_in_the_table(self) -> None:
        assert set(TRANSITIONS) == set(State)

    def test_every_state_leads_to_finished_and_nothing_leads_on(self) -> None:
        assert all(State.FINISHED in TRANSITIONS[state] for state in State if state is not State.FINISHED)
        assert TRANSITIONS[State.FINISHED] == frozenset()

    def test_other_fields_change_with_the_state(self) -> None:
        done = change(job(), State.FINISHED, reason=Reason.EXITED, exit_code=3)
        assert (done.reason, done.exit_code, done.id) == (Reason.EXITED, 3, "a1")

    def test_live_are_those_that_may_hold_processes(self) -> None:
        assert {state for state in State if job(state).live} == set(State) - {State.QUEUED, State.FINISHED}


class TestShellCode:
    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"reason": Reason.EXITED, "exit_code": 0}, 0),
            ({"reason": Reason.EXITED, "exit_code": 255}, 255),
            ({"reason": Reason.SIGNALED, "signal": 9}, 137),
            ({"reason": Reason.SIGNALED, "signal": 15}, 143),
            ({"reason": Reason.OOM, "signal": 9}, 137),
            ({"reason": Reason.OOM, "exit_code": 1}, 1),
            ({"reason": Reason.STOPPED, "signal": 15}, 143),
            ({"reason": Reason.STOPPED, "exit_code": 0}, 0),
            ({"reason": Reason.TIMEOUT, "signal": 9}, 124),
            ({"reason": Reason.TIMEOUT, "exit_code": 0}, 124),
            ({"reason": Reason.LOST}, 125),
            ({"reason": Reason.START_FAILED}, 125),
        ],
    )
    def test_is_the_shells(self, fields: dict[str, Any], code: int) -> None:
        assert shell_code(job(State.FINISHED, **fields)) == code

    @pytest.mark.parametrize(
        ("step", "errno", "code"),
        [
            ("exec", 2, 127),
            ("exec", 13, 126),
            ("exec", 8, 126),
            ("exec", 20, 126),
            ("chdir", 2, 125),
            ("mount", 13, 125),
        ],
    )
    def test_of_a_command_that_never_ran_tells_not_found_from_not_executable(
        self, step: str, errno: int, code: int
    ) -> None:
        failed = job(State.FINISHED, reason=Reason.START_FAILED, start_error=StartError(step, errno, "why"))
        assert shell_code(failed) == code

    def test_an_unknown_outcome_is_never_0(self) -> None:
        for reason in Reason:
            assert shell_code(job(State.FINISHED, reason=reason)) != 0


class TestNewId:
    def test_is_ten_characters_of_an_alphabet_without_look_alikes(self) -> None:
        made = {new_id() for _ in range(1000)}
        assert len(made) == 1000
        assert all(len(job_id) == 10 and set(job_id) <= set(ID_ALPHABET) for job_id in made)
        assert not set("ilou") & set(ID_ALPHABET)
        assert len(ID_ALPHABET) == 32


def spec(**fields: Any) -> JobSpec:
    return msgspec.convert({"argv": ["true"], **fields}, JobSpec)


def limits(**fields: Any) -> Limits:
    return msgspec.convert(fields, Limits)


class TestSpec:
    @pytest.mark.parametrize("name", ["a", "0", "web", "web-1", "a.b_c", "A" * 64])
    def test_accepts_names(self, name: str) -> None:
        assert spec(name=name).name == name

    @pytest.mark.parametrize(
        "name", ["", "-a", ".a", "_a", "a b", "a/b", "../a", "a\n", "\na", "ä", "a\0", "a\x1b[0m", "A" * 65, "٣"]
    )
    def test_refuses_other_names(self, name: str) -> None:
        with pytest.raises(msgspec.ValidationError):
            spec(name=name)

    @pytest.mark.parametrize("hostname", ["", "-a", "a-", "a_b", "a\n", "a" * 65, "a b", "ä"])
    def test_refuses_other_hostnames(self, hostname: str) -> None:
        assert spec(hostname="my-host.example").hostname == "my-host.example"
        with pytest.raises(msgspec.ValidationError):
            spec(hostname=hostname)

    @pytest.mark.parametrize(
        "fields",
        [
            {"argv": []},
            {"argv": "true"},
            {"argv": [1]},
            {"umask": -1},
            {"umask": 0o1000},
            {"stop_signal": 0},
            {"stop_signal": 65},
            {"grace": -1},
            {"grace": 86_400_000_001},
            {"max_output": 0},
            {"net": "bridged"},
            {"cwd": "/" * 4097},
            {"unknown": 1},
            {"env": {}},
            {"limits": {"memroy": 1}},
            {"mounts": [{"kind": "rw"}]},
            {"mounts": [{"kind": "rx", "target": "/"}]},
            {"mounts": [{"kind": "tmpfs", "target": "/a", "size": 0}]},
            {"read_only": 1},
        ],
        ids=str,
    )
    def test_refuses(self, fields: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            spec(**fields)

    def test_keeps_mounts_in_their_order(self) -> None:
        mounts = [{"kind": "bind", "source": "/a", "target": "/b"}, {"kind": "ro", "target": "/b"}]
        assert spec(mounts=mounts).mounts == tuple(msgspec.convert(mount, Mount) for mount in mounts)

    def test_the_environment_is_no_part_of_a_job(self) -> None:
        assert not {"env", "environ", "environment"} & {*JobSpec.__struct_fields__, *Job.__struct_fields__}

    def test_a_spec_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            spec().cwd = "/tmp"  # type: ignore[misc]


class TestLimits:
    @pytest.mark.parametrize(
        "fields",
        [
            {"memory": 1},
            {"memory": 2**63 - 1},
            {"swap": 0},
            {"cpus": 0.001},
            {"cpus": 4},
            {"cpu_weight": 1},
            {"cpu_weight": 10_000},
            {"cpuset": "0"},
            {"cpuset": "0-3,6,8-9"},
            {"pids": 4_194_303},
            {"io": [{"read_bps": 1}, {"device": "8:0", "write_iops": 1}]},
        ],
        ids=str,
    )
    def test_accepts(self, fields: dict[str, Any]) -> None:
        assert limits(**fields) != Limits()

    @pytest.mark.parametrize(
        "fields",
        [
            {"memory": 0},
            {"memory": -1},
            {"memory": 2**63},
            {"memory": 1.5},
            {"memory": "1G"},
            {"memory": True},
            {"swap": -1},
            {"cpus": 0},
            {"cpus": -1},
            {"cpus": 100_001},
            {"cpus": float("nan")},
            {"cpus": float("inf")},
            {"cpu_weight": 0},
            {"cpu_weight": 10_001},
            {"cpuset": ""},
            {"cpuset": "0-"},
            {"cpuset": "0,"},
            {"cpuset": "a"},
            {"cpuset": "0\n"},
            {"pids": 0},
            {"pids": 4_194_304},
            {"io": [{"read_bps": 0}]},
            {"io": [{}] * 65},
            {"io_weight": 0},
        ],
        ids=lambda fields: str(fields)[:40],
    )
    def test_refuses(self, fields: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            limits(**fields)
