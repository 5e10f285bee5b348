"""What a real daemon answers is what docs/rpc.schema.json and docs/openrpc.json promise."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.host.daemon import ENV, ROOT, Daemon, running

pytestmark = pytest.mark.root
OPENRPC = json.loads((Path(ROOT) / "docs/openrpc.json").read_text())
METHODS = {method["name"]: method for method in OPENRPC["methods"]}


class Caller:
    """Calls without any of our own code on the way, and holds both sides to the document."""

    def __init__(self, daemon: Daemon) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        self._sock.connect(str(daemon.socket))
        self._file = self._sock.makefile("rb")
        self.called: set[str] = set()

    def __call__(self, method: str, **params: Any) -> Any:
        self.called.add(method)
        for name, value in params.items():
            (param,) = (one for one in METHODS[method]["params"] if one["name"] == name)
            self.validate(param["schema"], value)
        answer = self.raw(method, params)
        self.validate(METHODS[method]["result"]["schema"], answer["result"])
        return answer["result"]

    def raw(self, method: str, params: dict[str, Any]) -> Any:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self._sock.sendall(line.encode() + b"\n")
        return json.loads(self._file.readline())

    def validate(self, schema: dict[str, Any], value: Any) -> None:
        closed = {"components": OPENRPC["components"], "unevaluatedProperties": False, **schema}
        jsonschema.Draft202012Validator(closed).validate(value)

    def close(self) -> None:
        self._file.close()
        self._sock.close()


@pytest.fixture(scope="module")
def call() -> Iterator[Caller]:
    with running() as daemon:
        caller = Caller(daemon)
        yield caller
        caller.close()


def spec(*argv: str, **more: Any) -> dict[str, Any]:
    return {"spec": {"argv": list(argv), **more}, "env": ENV}


def test_every_answer_is_as_documented(call: Caller) -> None:
    """One life of everything: what a method gives has no field that the document lacks."""
    call("daemon.info")
    done = call("job.run", **spec("sh", "-c", "echo out; echo err >&2; exit 3", labels={"team": "blue"}))["id"]
    call("job.wait", ids=[done], timeout=30_000_000)
    call("job.status", id=done)
    call("output.wait", id=done, offset=0)
    call("output.read", id=done)
    lives = call("job.run", **spec("sleep", "1000", name="lives", timeout=10**10, grace=0))["id"]
    call("job.pause", id=lives)
    call("job.resume", id=lives)
    call("job.update", id=lives, timeout=10**9)
    call("job.rename", id=lives, name="other")
    call("job.kill", id=lives, signal=18)
    waits = call("job.run", **spec("true"), after=[{"id": lives, "outcome": "ok"}])["id"]
    assert call("job.status", id=waits)["waits_for"]
    call("job.list", all=True, labels={"team": None})
    call("job.list", states=["running", "queued"], limit=1)
    call("job.stop", id=lives)
    call("job.wait", ids=[waits], timeout=30_000_000)
    call("job.rerun", id=done)
    typed = call("job.run", **spec("cat", tty=True, grace=0), window={"rows": 10, "columns": 40})["id"]
    call("tty.resize", id=typed, window={"rows": 20, "columns": 40})
    call("tty.attach", id=typed)
    call("output.open", id=typed)
    call("job.remove", id=typed, force=True)
    call("events.subscribe", cursor="first", all=True, timeout=0)
    call("job.prune", reasons=["exited"], dry_run=True)
    call("job.prune", keep=0)
    # What needs descriptors of the caller is tried with them elsewhere (test_exec).
    assert set(METHODS) - call.called == {"job.exec"}


@pytest.mark.parametrize(
    ("method", "params", "kind"),
    [
        ("job.status", {"id": "nowhere"}, "no-such-job"),
        ("job.status", {}, "invalid-params"),
        ("job.nothing", {}, "method-not-found"),
        ("job.run", spec("/nowhere/program"), "command-not-found"),
        ("job.run", spec("/etc/passwd"), "cannot-execute"),
    ],
)
def test_every_refusal_has_its_documented_code_and_kind(
    call: Caller, method: str, params: dict[str, Any], kind: str
) -> None:
    error = call.raw(method, params)["error"]
    call.validate({"$ref": "#/components/schemas/ErrorObject"}, error)
    documented = OPENRPC["components"]["errors"][kind]
    assert (error["code"], error["data"]["kind"]) == (documented["code"], kind)
