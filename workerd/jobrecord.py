"""A job's record beside its output, so that the database can be made again from the
job directories (workerd.salvage).

    <state>/jobs/<id>/job    one JSON line at admission (the job and its environment),
                             one more at its end (the job as it ended)

Of what changes in between, the kernel tells the most; a name given later is lost with
the database. A line without its newline was cut short and counts as not there.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import msgspec
from msgspec import Struct

from workerd.job import Job, JobSpec, Limits

NAME = "job"


class Admission(Struct, frozen=True):
    """The first line."""

    job: Job
    env: dict[str, str] = {}


_admissions = msgspec.json.Decoder(Admission)
_jobs = msgspec.json.Decoder(Job)
_encode = msgspec.json.Encoder().encode


def admit(directory: str, job: Job, env: dict[str, str]) -> None:
    """The record in the job's directory, which is made where it is not there. Raises
    OSError, and then none of it is left."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    try:
        fd = os.open(f"{directory}/{NAME}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, _encode(Admission(job, env)) + b"\n", 0)
        finally:
            os.close(fd)
    except BaseException:
        remove(directory)
        raise


def finish(directory: str, job: Job) -> None:
    """Add how the job ended, in place of what an earlier call said. Raises OSError;
    FileNotFoundError where there is no record."""
    fd = os.open(f"{directory}/{NAME}", os.O_RDWR | os.O_CLOEXEC)
    try:
        first = len(_read(fd).split(b"\n", 1)[0]) + 1
        line = _encode(job) + b"\n"
        _write(fd, line, first)
        os.ftruncate(fd, first + len(line))
    finally:
        os.close(fd)


def remove(directory: str) -> None:
    """The record, and the directory where it is empty then."""
    for action, path in ((os.unlink, f"{directory}/{NAME}"), (os.rmdir, directory)):
        try:
            action(path)
        except OSError:
            continue


def load(directory: str) -> Admission | None:
    """The newest that the record says; None where there is none that can be read.
    What a newer workerd wrote is understood as far as it goes. Raises OSError."""
    try:
        fd = os.open(f"{directory}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        lines = _read(fd).split(b"\n")[:-1]  # the last one is empty, or cut short
    finally:
        os.close(fd)
    if not lines:
        return None
    first: Admission | None = _decode(lines[0], _admissions)
    if first is None or len(lines) == 1:
        return first
    ended: Job | None = _decode(lines[1], _jobs)
    return first if ended is None else Admission(ended, first.env)


def _decode(line: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError:
        pass  # of a newer version, perhaps
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    try:
        return msgspec.convert(_understood(msgspec.json.decode(line)), decoder.type)
    except msgspec.ValidationError:
        return None


def _understood(record: Any) -> Any:
    """Without the fields of a spec that this version does not know."""
    job = record.get("job", record) if isinstance(record, dict) else None
    if isinstance(job, dict):
        _keep_known(job, "spec", JobSpec)
        _keep_known(job, "effective", Limits)
        if isinstance(job.get("spec"), dict):
            _keep_known(job["spec"], "limits", Limits)
    return record


def _keep_known(owner: dict[str, Any], key: str, known: type[Struct]) -> None:
    if isinstance(fields := owner.get(key), dict):
        owner[key] = {name: value for name, value in fields.items() if name in known.__struct_fields__}


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
