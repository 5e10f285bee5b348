"""The reference pages: as the sources are, and well-formed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tools.reference.openrpc import document
from tools.reference.pages import PAGES
from tools.reference.policypage import EXAMPLE
from tools.reference.roff import Page
from tools.reference.schema import components
from tools.reference.structs import field_docs
from tools.reference.workerctlpage import ENVIRONMENT
from workerctl.verbs import VERBS, load
from workerd import config, errors, protocol
from workerd.__main__ import argument_parser
from workerd.job import Job

ROOT = Path(__file__).resolve().parents[2]
OPENRPC = json.loads((ROOT / "docs/openrpc.json").read_text())
SCHEMA = json.loads((ROOT / "docs/rpc.schema.json").read_text())

TEXT = {"type": "string", "minLength": 1}
REFERENCE = {"type": "object", "required": ["$ref"], "additionalProperties": False, "properties": {"$ref": TEXT}}
DESCRIPTOR = {
    "type": "object",
    "required": ["name", "schema"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "summary": TEXT,
        "description": TEXT,
        "required": {"type": "boolean"},
        "schema": {"type": "object"},
        "deprecated": {"type": "boolean"},
    },
}
ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "additionalProperties": False,
    "properties": {"code": {"type": "integer"}, "message": TEXT, "data": {}},
}
METHOD = {
    "type": "object",
    "required": ["name", "params"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "summary": TEXT,
        "description": TEXT,
        "paramStructure": {"enum": ["by-name", "by-position", "either"]},
        "params": {"type": "array", "items": DESCRIPTOR},
        "result": DESCRIPTOR,
        "errors": {"type": "array", "items": {"anyOf": [ERROR, REFERENCE]}},
    },
}
RULES = {
    "type": "object",
    "required": ["openrpc", "info", "methods"],
    "additionalProperties": False,
    "properties": {
        "openrpc": {"type": "string", "pattern": r"^1\.[0-9]+\.[0-9]+$"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "additionalProperties": False,
            "properties": {
                "title": TEXT,
                "version": TEXT,
                "description": TEXT,
                "license": {"type": "object", "required": ["name"], "properties": {"name": TEXT, "url": TEXT}},
            },
        },
        "servers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "url"],
                "additionalProperties": False,
                "properties": {"name": TEXT, "url": TEXT, "summary": TEXT, "description": TEXT},
            },
        },
        "methods": {"type": "array", "items": METHOD},
        "components": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "schemas": {"type": "object", "additionalProperties": {"type": "object"}},
                "errors": {"type": "object", "additionalProperties": ERROR},
            },
        },
    },
}
"""what https://spec.open-rpc.org (1.3) asks of the objects that our document has"""


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value))
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set()


def resolves(reference: str, document: Any) -> bool:
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        if part not in document:
            return False
        document = document[part]
    return True


class TestPages:
    @pytest.mark.parametrize("name", PAGES)
    def test_is_what_the_sources_give(self, name: str) -> None:
        assert (ROOT / name).read_text() == PAGES[name](), f"{name} is stale: make docs"

    def test_every_link_within_the_page_leads_somewhere(self) -> None:
        text = (ROOT / "docs/rpc.md").read_text()
        anchors = {title.lower().replace(".", "").replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}
        assert set(re.findall(r"\(#([^)]*)\)", text)) <= anchors

    def test_explains_every_method_and_every_parameter(self) -> None:
        text = (ROOT / "docs/rpc.md").read_text()
        for name, method in protocol.METHODS.items():
            section = text.split(f"### {name}\n")[1].split("\n### ")[0]
            assert all(f"| `{field}` |" in section for field in method.params.__struct_fields__)

    def test_says_of_a_field_what_stands_below_it(self) -> None:
        assert field_docs(Job)["address"] == "its IPv4 address on the bridge"
        assert field_docs(protocol.JobParams)["id"] == "an id, a unique prefix of one, or a name"
        assert components("#{name}")["Job"]["properties"]["address"]["description"] == field_docs(Job)["address"]


def manual(name: str) -> str:
    """As mandoc shows it, on one line: without hyphenation, bold or indentation."""
    shown = subprocess.run(["mandoc", "-Tutf8", "-Owidth=1000", ROOT / "man" / name], capture_output=True, check=True)
    return " ".join(re.sub(".\b", "", shown.stdout.decode()).split())


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
class TestManualPages:
    @pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("man/")])
    def test_is_well_formed(self, name: str) -> None:
        done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", str(ROOT / name)], capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("", 0)

    @pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed (groff-base)")
    @pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("man/")])
    def test_is_read_by_groff_without_a_warning(self, name: str) -> None:
        command = ["groff", "-man", "-ww", "-Tutf8", "-rLL=80n", str(ROOT / name)]
        assert subprocess.run(command, capture_output=True, check=True).stderr == b""

    def test_workerctl_has_every_verb_option_and_example(self) -> None:
        page = manual("workerctl.1")
        for name in VERBS:
            verb = load(name).VERB
            assert f"{name} {verb.arguments}".strip() in page
            for option in (option for group in verb.groups.values() for option in group):
                assert " ".join([", ".join(option.flags), option.metavar, option.help]).replace("  ", " ") in page
            assert all(f"workerctl {' '.join(command.split())}" in page for command, _ in verb.examples)

    def test_workerctl_explains_every_variable_that_it_looks_at(self) -> None:
        sources = [path.read_text() for path in (ROOT / "workerctl").rglob("*.py")]
        found = {name for text in sources for name in re.findall(r"""environ(?:\.get\(|\[)"([A-Z_]+)""", text)}
        assert found >= {"WORKERD_SOCKET", "NO_COLOR"} and found <= ENVIRONMENT.keys()

    def test_workerd_has_every_option(self) -> None:
        page = manual("workerd.8")
        for action in argument_parser()._actions:
            assert all(f"{flag}" in page for flag in action.option_strings)

    def test_the_policy_has_every_key_with_its_default(self) -> None:
        page = manual("workerd.toml.5")
        keys = re.findall(r"^#(\w+ = .*)$", (ROOT / "systemd/workerd.toml").read_text(), re.MULTILINE)
        assert len(keys) > 10 and all(key in page for key in keys)

    def test_the_example_of_a_policy_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "workerd.toml").write_text(EXAMPLE.replace('"ada"', '"root"'))
        config.load(tmp_path / "workerd.toml", required=True)

    def test_text_is_never_taken_for_a_request(self) -> None:
        made = Page("x", 1, "2026-01-01", "1", "m")
        made.section("Name")
        made.paragraph(".so /etc/passwd \\n(.z 'quoted' \u2026")
        assert made.text().splitlines()[-1] == r"\&.so /etc/passwd \en(.z \(aqquoted\(aq \[u2026]"


class TestOpenRpc:
    def test_holds_the_rules_of_the_specification(self) -> None:
        jsonschema.Draft202012Validator(RULES).validate(OPENRPC)

    def test_every_reference_resolves(self) -> None:
        assert [one for one in references(OPENRPC) if not resolves(one, OPENRPC)] == []

    def test_names_are_unique_and_what_is_required_comes_first(self) -> None:
        names = [method["name"] for method in OPENRPC["methods"]]
        assert names == list(protocol.METHODS)
        for method in OPENRPC["methods"]:
            required = [param["required"] for param in method["params"]]
            assert required == sorted(required, reverse=True)
            assert len({param["name"] for param in method["params"]}) == len(method["params"])

    def test_errors_carry_their_kind(self) -> None:
        assert document()["components"]["errors"]["no-such-job"] == {
            "code": -32000,
            "message": "unknown, or somebody else's",
            "data": {"kind": "no-such-job"},
        }


class TestSchema:
    def test_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        for schema in SCHEMA["$defs"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_every_reference_resolves(self) -> None:
        assert [one for one in references(SCHEMA) if not resolves(one, SCHEMA)] == []

    def test_patterns_are_those_of_ecmascript(self) -> None:
        assert r"\\A" not in json.dumps(SCHEMA) and r"\\Z" not in json.dumps(SCHEMA)

    @pytest.mark.parametrize(
        ("params", "right"),
        [
            ({"spec": {"argv": ["true"], "name": "a-name"}}, True),
            ({"spec": {"argv": ["true"], "name": "-a"}}, False),
            ({"spec": {"argv": []}}, False),
            ({"spec": {"argv": ["true"]}, "unknown": 1}, False),
            ({"spec": {"argv": ["true"], "limits": {"memory": 0}}}, False),
        ],
    )
    def test_takes_and_refuses_what_the_daemon_does(self, params: dict[str, Any], right: bool) -> None:
        validator = jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/RunParams"})
        assert validator.is_valid(params) is right
        request = protocol.Request("2.0", "job.run", msgspec.Raw(json.dumps(params).encode()), 1)
        try:
            protocol.decode_params(request)
            taken = True
        except errors.InvalidParams:
            taken = False
        assert taken is right
