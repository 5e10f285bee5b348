"""JSON Schema (2020-12) of all that the RPC speaks of, from the structs of protocol.py.

As msgspec makes it, with what the sources say of each field added, and patterns written
as ECMAScript's regular expressions have them, which is what JSON Schema asks for.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec

from tools.reference.structs import doc_of, field_docs
from workerd import __version__, protocol

DEFS = "#/$defs/{name}"


def as_text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def spoken() -> list[type]:
    """The parameters and results of all methods, and what carries them."""
    types: list[type] = [protocol.ErrorObject]
    for method in protocol.METHODS.values():
        types += [method.params, method.result]
    return list(dict.fromkeys(types))


@cache
def types_by_name() -> dict[str, type]:
    """Every struct and enumeration that they are made of."""
    import workerd.events
    import workerd.job

    names = _raw(DEFS)
    modules = (protocol, workerd.job, workerd.events)
    return {name: next(getattr(one, name) for one in modules if hasattr(one, name)) for name in names}


def components(template: str) -> dict[str, Any]:
    """The schemas by name, with references as `template` has them."""
    made = _raw(template)
    for name, found in types_by_name().items():
        schema = made[name]
        if doc := doc_of(found):
            schema["description"] = doc
        docs = field_docs(found)
        for field, inner in schema.get("properties", {}).items():
            if doc := docs.get(field, ""):
                schema["properties"][field] = {"description": doc, **inner}
    return {name: _ecma(schema) for name, schema in made.items()}


def document() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "worker: what its RPC speaks of",
        "description": "Made from workerd/protocol.py; which method takes and gives what is in openrpc.json.",
        "version": __version__,
        "$defs": components(DEFS),
    }


def _raw(template: str) -> dict[str, Any]:
    _, made = msgspec.json.schema_components(spoken(), ref_template=template)
    return made


def _ecma(value: Any) -> Any:
    """Patterns without \\A and \\Z, which ECMAScript does not have."""
    if isinstance(value, list):
        return [_ecma(one) for one in value]
    if isinstance(value, dict):
        made = {key: _ecma(one) for key, one in value.items()}
        if isinstance(pattern := value.get("pattern"), str):
            made["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
        return made
    return value
