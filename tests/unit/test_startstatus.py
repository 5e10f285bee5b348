"""What a first stage says on the status pipe, and what of it is believed."""

from __future__ import annotations

import pytest

from workerd.startstatus import parse

ERROR = "error exec 2 /x"


@pytest.mark.parametrize("end_of_line", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_a_newline_ends_a_line(end_of_line: str) -> None:
    pid, error = parse(f"pid 4711\n{ERROR}{end_of_line}pid -1\n".encode(), "job")
    assert pid == 4711
    assert error is not None
    assert error.data["step"] == "exec"


@pytest.mark.parametrize("number", ["-1", "0", "1", "01", "zz", "", " 5", "5 ", "+5", "\u0665", "12345678901"])
def test_what_no_job_can_be_is_no_pid(number: str) -> None:
    pid, error = parse(f"pid {number}\n".encode(), "job")
    assert pid == 0
    assert error is not None


def test_the_first_pid_and_the_first_error_count() -> None:
    pid, error = parse(f"{ERROR}\npid 4711\npid 4712\nerror chdir 13 /y\n".encode(), "job")
    assert pid == 4711
    assert error is not None
    assert error.data["step"] == "exec"


def test_what_is_no_text_is_shown_as_it_can_be() -> None:
    _, error = parse(b"pid 4711\nerror exec 2 /\xff\n", "job")
    assert error is not None
    assert "\\xff" in str(error)
